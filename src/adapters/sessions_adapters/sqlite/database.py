"""The database: what all adapters of this package share, from its opening to its end."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from typing import Final, TypeVar

import anyio
import anyio.to_thread
import attrs

from sessions_adapters.shared.waiters import Waiters
from sessions_adapters.sqlite import ownership, schema
from sessions_adapters.sqlite.config import SqliteConfig
from sessions_adapters.sqlite.followers import FollowersOfAppends
from sessions_adapters.sqlite.heads import Heads
from sessions_adapters.sqlite.leaders import Leaders
from sessions_adapters.sqlite.log_writer import LogWriter
from sessions_adapters.sqlite.readers import Readers
from sessions_adapters.sqlite.requests import Work
from sessions_adapters.sqlite.results import Results
from sessions_adapters.sqlite.trimmer import Trimmer
from sessions_adapters.sqlite.values import MILLISECOND, to_ms
from sessions_adapters.sqlite.writer import Writer
from sessions_core.errors import IncompatibleStoreError, StoreUnavailableError, UnavailableError
from sessions_core.ports.clock import Clock
from sessions_core.ports.environment_store import Cipher

T = TypeVar("T")

_CLOSING_SECONDS: Final = 30
_OLDEST_SQLITE: Final = (3, 40)


@attrs.define(eq=False)
class SqliteDatabase:
    """An open database file. Made by :func:`open_database`; belongs to the event loop that it was opened on.

    Attributes:
        log: For use by the writer's thread.
        followers: Who reads channels on and on.
        waiters: Who waits for a waitpoint.
        leaders: Who leads.
        results: Reads many rows, without those that cannot be read.
    """

    config: SqliteConfig
    clock: Clock
    cipher: Cipher | None = attrs.field(repr=False)
    loop: asyncio.AbstractEventLoop = attrs.field(repr=False)
    log: LogWriter = attrs.field(repr=False)
    writer: Writer = attrs.field(init=False, repr=False)
    readers: Readers = attrs.field(init=False, repr=False)
    followers: FollowersOfAppends = attrs.field(init=False, repr=False)
    trimmer: Trimmer = attrs.field(init=False, repr=False)
    waiters: Waiters = attrs.field(init=False, factory=Waiters, repr=False)
    leaders: Leaders = attrs.field(init=False, factory=Leaders, repr=False)
    results: Results = attrs.field(init=False, factory=Results, repr=False)

    def now(self) -> datetime:
        """Return the store's time."""
        return self.clock.now()

    def now_ms(self) -> int:
        """Return the store's time in Unix milliseconds."""
        return to_ms(self.clock.now())

    async def write(
        self,
        run: Callable[[sqlite3.Connection], T],
        *,
        failure: type[UnavailableError] = StoreUnavailableError,
        after: Callable[[T], None] | None = None,
    ) -> T:
        """Carry *run* out in a transaction, and return its answer once that is durable.

        Args:
            run: May be repeated, so it has no effect but through the connection.
            failure: What to raise when SQLite fails.
            after: Called with the answer once that is durable, also if the caller has been cancelled.
        """
        future: asyncio.Future[T] = self.loop.create_future()
        with translated(failure):
            self.writer.put(Work(run, future, after))
            return await future

    async def read(
        self, run: Callable[[sqlite3.Connection], T], *, failure: type[UnavailableError] = StoreUnavailableError
    ) -> T:
        """Return *run*'s answer. It sees every write that has returned."""
        future: asyncio.Future[T] = self.loop.create_future()
        with translated(failure):
            self.readers.put(Work(run, future))
            return await future

    def end(self) -> None:
        """Let nobody wait for what will not come any more."""
        self.followers.end()
        self.waiters.end()
        self.leaders.lose()


@contextmanager
def translated(failure: type[UnavailableError]) -> Iterator[None]:
    """Raise *failure* instead of SQLite's errors."""
    try:
        yield
    except sqlite3.Error as exc:
        raise failure from exc


def for_owner(_: object, __: object, db: SqliteDatabase) -> None:
    """Refuse a database that this process does not own.

    Raises:
        IncompatibleStoreError: Opened with ``owner=False``.
    """
    if not db.config.owner:
        raise IncompatibleStoreError(f"{db.config.path} was opened without owning it; only environments can be used")


@asynccontextmanager
async def open_database(
    config: SqliteConfig, *, clock: Clock, cipher: Cipher | None = None, migrate: bool = True
) -> AsyncIterator[SqliteDatabase]:
    """Open the database, and make or update it if need be.

    On leaving, what was taken is written and answered, endless calls (follow, wait) end with an UnavailableError, leaders
    are cancelled, and the file is closed. Opening blocks the event loop for as long as the migrations take.

    Args:
        config: Says where it is.
        clock: The store's time.
        cipher: Needed for root keys.
        migrate: If False, a database that is not up to date is refused instead of updated.

    Raises:
        IncompatibleStoreError: Another process owns the data; or the file is newer than this software, no database, or
            out of date and not to be updated.
        StoreUnavailableError: The file cannot be used.
    """
    with ExitStack() as stack:
        with _opening(config):
            ownership.make_private(config.path)
            if config.owner:
                stack.enter_context(ownership.lock(config.path))
            _prepare(config, migrate=migrate)
            db = _start(config, clock, cipher)
        try:
            yield db
        finally:
            await _stop(db)


@contextmanager
def _opening(config: SqliteConfig) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        if getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise IncompatibleStoreError(f"{config.path} is not an SQLite database") from exc
        raise StoreUnavailableError from exc
    except OSError as exc:
        raise StoreUnavailableError from exc


def _prepare(config: SqliteConfig, *, migrate: bool) -> None:
    """Bring the file up to date."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise IncompatibleStoreError(f"SQLite {sqlite3.sqlite_version} is too old; 3.40 or newer is needed")
    connection = ownership.connect_writer(config)
    try:
        if schema.find_pending(connection, config.path):
            _migrate(connection, config, migrate=migrate)
    finally:
        connection.close()


def _migrate(connection: sqlite3.Connection, config: SqliteConfig, *, migrate: bool) -> None:
    if not migrate:
        raise IncompatibleStoreError(
            f"{config.path} has schema version {schema.stored_version(connection)}, this software needs a later one; "
            "run the migrations first"
        )
    with ExitStack() as stack:
        if not config.owner:  # nobody may be at work while the tables change
            patience = config.busy_timeout.total_seconds()
            stack.enter_context(ownership.lock(config.path, patience=patience))
        connection.execute("pragma journal_mode = wal")
        for migration in schema.find_pending(connection, config.path):
            schema.apply(connection, migration)


def _start(config: SqliteConfig, clock: Clock, cipher: Cipher | None) -> SqliteDatabase:
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        connection = ownership.connect_writer(config)
        stack.callback(connection.close)
        connections = []
        for _ in range(config.readers):
            connections.append(ownership.connect_reader(config))
            stack.callback(connections[-1].close)
        db = _assemble(config, clock, cipher, loop, connection, connections)
        stack.pop_all()  # the threads close them
    db.writer.start()
    db.readers.start()
    if config.owner:
        db.trimmer.resume()
    return db


def _assemble(
    config: SqliteConfig,
    clock: Clock,
    cipher: Cipher | None,
    loop: asyncio.AbstractEventLoop,
    connection: sqlite3.Connection,
    connections: list[sqlite3.Connection],
) -> SqliteDatabase:
    heads = Heads(connection, config.part_window_records, config.known_channels)
    log = LogWriter(connection, heads, config.part_window_records, config.part_window // MILLISECOND)
    db = SqliteDatabase(config, clock, cipher, loop, log)
    db.followers = FollowersOfAppends(config.buffered_bytes)
    db.readers = Readers(connections, loop)
    db.writer = Writer(
        connection,
        log,
        db.now_ms,
        config.group_size,
        config.checkpoint_pages,
        loop,
        committed=db.followers.publish_appends,
        ended=db.end,
    )
    db.trimmer = Trimmer(log, db.writer.put, db.followers)
    return db


async def _stop(db: SqliteDatabase) -> None:
    db.end()
    with anyio.move_on_after(_CLOSING_SECONDS, shield=True):
        for thread in db.readers.stop():
            await _join(thread)
        await _join(db.writer.stop())  # the last connection: closing it moves everything into the database


async def _join(thread: threading.Thread) -> None:
    await anyio.to_thread.run_sync(thread.join, abandon_on_cancel=True)
