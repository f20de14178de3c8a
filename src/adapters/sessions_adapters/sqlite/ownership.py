"""Opening the file: who may, and how a connection is set up."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sessions_adapters.sqlite.config import SqliteConfig
from sessions_core.errors import StoreInUseError

_PAUSE_SECONDS: Final = 0.02
_CACHE_KIB: Final = 32_768
_LARGEST_LOG_BYTES: Final = 67_108_864


def make_private(path: Path) -> None:
    """Make the file, readable by its owner only, unless it is there. SQLite gives its other files the same mode.

    A file that is there must not be opened: closing it again would drop the locks that SQLite holds for this process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


@contextmanager
def lock(path: Path, *, patience: float = 0) -> Iterator[None]:
    """Hold the lock that says which process owns the data at *path*. It ends with the process, however that ends.

    Args:
        path: The database. The lock file lies beside it and stays there; it holds the process id of the owner.
        patience: Seconds to wait for another owner.

    Raises:
        StoreInUseError: Somebody else holds it, be it another process or this one.
    """
    with path.with_name(path.name + ".lock").open("a+", encoding="ascii") as file:
        if not _acquire(file.fileno(), time.monotonic() + patience):
            file.seek(0)
            holder = file.read(20).strip() or "unknown"
            raise StoreInUseError(f"{path} is in use by process {holder}; stop it first, or choose another path")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _acquire(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_SECONDS)
        else:
            return True


def connect_writer(config: SqliteConfig) -> sqlite3.Connection:
    """Open a connection whose commits survive a loss of power, and which checkpoints only when told to."""
    connection = _connect(config, "rw")
    connection.execute("pragma synchronous = full")
    connection.execute("pragma wal_autocheckpoint = 0")
    connection.execute(f"pragma cache_size = -{_CACHE_KIB}")
    connection.execute(f"pragma journal_size_limit = {_LARGEST_LOG_BYTES}")
    if config.max_pages is not None:
        connection.execute(f"pragma max_page_count = {config.max_pages:d}")
    return connection


def connect_reader(config: SqliteConfig) -> sqlite3.Connection:
    """Open a connection that cannot write."""
    return _connect(config, "ro")


def _connect(config: SqliteConfig, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{config.path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=config.busy_timeout.total_seconds(),
        isolation_level=None,  # transactions begin and end where we say
        check_same_thread=False,  # opened by one thread, used by another, never by two at once
    )
    connection.row_factory = sqlite3.Row
    return connection
