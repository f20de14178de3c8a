"""The ClickHouse engine (``chdb``): in this process, or behind HTTP in a process of its own that a test may kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Self

import attrs

from harness.services import CannotStartError, Service

GIVEN: Final = "SESSIONS_TEST_CLICKHOUSE_URL"
"""Names a server to use for tests that share one, instead of the engine in process."""


def require_engine() -> None:
    """Check that the engine is installed.

    Raises:
        CannotStartError: It is not.
    """
    if find_spec("chdb") is None:
        raise CannotStartError("there is no ClickHouse: the wheel chdb is not installed")


@attrs.define(eq=False)
class ClickHouseServer:
    """A ClickHouse in a process of its own. Start it, kill it, start it again at the same address on the same data."""

    folder: Path
    port: int = attrs.field(init=False, default=0)
    _process: subprocess.Popen[str] | None = attrs.field(init=False, default=None)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it and wait until it listens.

        Raises:
            CannotStartError: The engine is not installed, or did not start.
        """
        require_engine()
        command = [sys.executable, "-m", "harness.clickhouse_front", str(self.folder), str(self.port)]
        tests = Path(__file__).parent.parent
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tests)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("listening on "):
            raise CannotStartError("the front of the ClickHouse engine did not start")
        self.port = int(line.rsplit(" ", 1)[1])
        return self

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()

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


@contextmanager
def _open() -> Iterator[str]:
    given = os.environ.get(GIVEN)
    if given:
        yield given
        return
    require_engine()
    import clickhouse_connect

    with tempfile.TemporaryDirectory(prefix="sessions-clickhouse-", ignore_cleanup_errors=True) as folder:
        url = f"chdb://{folder}"
        with closing(clickhouse_connect.get_client(dsn=url)):  # the engine runs as long as it has a client
            yield url


CLICKHOUSE: Final = Service(_open)
"""The URL of the engine that tests share. A process has one engine at a time; each test makes a database of its own."""
