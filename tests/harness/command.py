"""The ``sessions`` command as a person types it: with its output in pipes, or at a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import attrs

PROGRAM = [sys.executable, "-m", "sessions_server"]
PATIENCE = 30


def environment(**given: str) -> dict[str, str]:
    """Return this process's environment without settings of ours, and with *given*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SESSIONS_", "NO_COLOR"))}
    return {**kept, "TERM": "xterm", **given}


def sessions(*arguments: str | Path, stdin: str | None = None, **given: str) -> subprocess.CompletedProcess[str]:
    """Run ``sessions`` to its end; *given* are environment variables."""
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=50, check=False, env=environment(**given), input=stdin
    )


@attrs.define(eq=False)
class AtTerminal:
    """``sessions`` at a pseudo-terminal, while it runs."""

    arguments: tuple[str, ...]
    given: dict[str, str]
    shown: str = attrs.field(init=False, default="")
    _process: subprocess.Popen[bytes] = attrs.field(init=False)
    _reader: threading.Thread = attrs.field(init=False)
    _master: int = attrs.field(init=False)

    @classmethod
    def run(cls, *arguments: str, **given: str) -> AtTerminal:
        """Prepare a command; *given* are environment variables."""
        return cls(arguments, given)

    def __enter__(self) -> Self:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [*PROGRAM, *self.arguments], stdin=slave, stdout=slave, stderr=slave, env=environment(**self.given)
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join(PATIENCE)
        os.close(self._master)

    def wait_for(self, text: str) -> None:
        """Wait until the terminal has shown *text*."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            time.sleep(0.02)

    def interrupt(self) -> int:
        """Press Ctrl-C; return the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._master, 65_536)
            except OSError:  # how a pseudo-terminal says that nobody writes to it any more
                return
            self.shown += piece.decode(errors="replace")
