"""A real server: its own process, on a free loopback port, with its data in a given directory."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Self

import attrs

KEY = "tr_dev_harness000000000000000000"
START_SECONDS = 30
LISTENING = re.compile(r" (?:listening|[Rr]unning) on (https?://\S+)")


@attrs.define(eq=False)
class ServerProcess:
    """``sessions serve`` in a process of its own. Start it, kill it, start it again on the same data."""

    data: Path
    agents: str = "sessions_server.bundled:agents"
    environment: dict[str, str] = attrs.field(factory=dict)
    port: int = 0
    file_limit: int | None = None
    """Largest file it may write, in KiB: a disk that is full for it."""
    address: str = attrs.field(init=False, default="")
    _process: subprocess.Popen[str] | None = attrs.field(init=False, default=None)
    _lines: queue.SimpleQueue[str | None] = attrs.field(init=False, factory=queue.SimpleQueue)
    output: list[str] = attrs.field(init=False, factory=list)

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has been started and not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and wait until it says where it listens."""
        self.launch()
        self.address = self.wait_for(LISTENING)[1]
        self.port = int(self.address.rsplit(":", 1)[1])
        return self

    def launch(self) -> None:
        """Start it and do not wait."""
        command = self.command()
        if self.file_limit is not None:
            command = ["bash", "-c", f'ulimit -f {self.file_limit}; exec "$@"', "bash", *command]
        self._lines = queue.SimpleQueue()
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
        )
        assert self._process.stdout is not None
        threading.Thread(target=self._collect, args=(self._process.stdout, self._lines), daemon=True).start()

    def command(self) -> list[str]:
        """Return the command that starts it."""
        serve = [sys.executable, "-m", "sessions_server", "serve", "--port", str(self.port)]
        return [*serve, "--data", str(self.data), "--agents", self.agents, "--dev-key", KEY]

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self, patience: float = 30) -> int:
        """End it with SIGTERM and return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.wait(patience)

    def wait(self, patience: float = 30) -> int:
        """Wait until it has ended by itself, or by somebody else's signal; return its exit code."""
        assert self._process is not None
        return self._process.wait(patience)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.__exit__()  # nobody else will end one that did not come up
            raise

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self.is_running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            self._process.kill()
            self._process.wait()

    def _collect(self, stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
        with stream:
            for line in stream:
                self.output.append(line.rstrip())
                lines.put(line)
        lines.put(None)

    def wait_for(self, said: re.Pattern[str]) -> re.Match[str]:
        """Wait until it prints a line with *said*."""
        while True:
            line = self._lines.get(timeout=START_SECONDS)
            if line is None:
                assert self._process is not None
                self._process.wait()
                raise RuntimeError("it ended at once:\n" + "\n".join(self.output[-20:]))
            if found := said.search(line):
                return found
