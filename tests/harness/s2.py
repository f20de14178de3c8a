"""Real S2 servers: s2-lite in a process of its own, in memory or on a folder, ended by its id."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

import attrs

from harness.services import CannotStartError, Service

GIVEN: Final = "SESSIONS_TEST_S2_ENDPOINT"
"""Names a server to use for tests that share one, instead of starting it: an origin such as http://127.0.0.1:8080."""
MAKEFILE: Final = Path(__file__).parents[2] / "Makefile"
START_SECONDS: Final = 20
SETTINGS: Final = {
    "SL8_FLUSH_INTERVAL": "1ms",  # else each append takes 5 ms
    "SL8_MANIFEST_POLL_INTERVAL": "50ms",  # it sleeps as long as this when it starts
}


def find_binary() -> Path:
    """Return the path of s2-lite: what ``make s2`` has built.

    Raises:
        CannotStartError: Nobody has built it.
    """
    version = re.search(r"^S2_LITE := (\S+)", MAKEFILE.read_text(), re.MULTILINE)
    assert version is not None
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    binary = Path(cache) / "sessions" / f"s2-lite-{version[1]}" / "bin" / "server"
    if not binary.is_file():
        raise CannotStartError("there is no s2-lite: `make s2` builds it, once")
    return binary


@attrs.define(eq=False)
class S2Server:
    """An s2-lite in a process of its own. Start it, kill it, start it again at the same address on the same data.

    Attributes:
        root: Where its data are; None keeps them in its memory.
    """

    folder: Path
    root: Path | None = None
    port: int = attrs.field(init=False, default=0)
    _process: subprocess.Popen[bytes] | None = attrs.field(init=False, default=None)

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it, and wait until it answers.

        Raises:
            CannotStartError: There is no binary, or it did not start.
        """
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise CannotStartError(f"s2-lite did not start:\n{self._output.read_text()[-1000:]}")
            time.sleep(0.01)
        return self

    def launch(self) -> None:
        """Start its process without waiting for anything."""
        self.port = self.port or _find_free_port()
        command: list[str | Path] = [find_binary(), "--port", str(self.port)]
        if self.root is not None:
            self.root.mkdir(exist_ok=True)
            command += ["--local-root", self.root]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **SETTINGS, "RUST_LOG": "error"}
            )

    def answers(self) -> bool:
        """Tell whether it serves requests."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
            probe.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return b" 200 " in probe.recv(64)
        return False

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Keep its connections open but its process from running inside the block."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def _output(self) -> Path:
        return self.folder / "output"


def new_basin() -> str:
    """Return the name of a basin that nobody has."""
    return f"test-{uuid.uuid4().hex}"


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _open() -> Iterator[str]:
    given = os.environ.get(GIVEN)
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="sessions-s2-") as folder, S2Server(Path(folder)) as server:
        yield server.endpoint


S2: Final = Service(_open)
"""The endpoint of the server that tests share; each uses a basin or names of its own."""
