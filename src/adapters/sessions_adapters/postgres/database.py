"""The database: what all adapters of this package share, from its opening to its end."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any, Final, TypeVar

import anyio
import asyncpg
import attrs

from sessions_adapters.postgres import schema
from sessions_adapters.postgres.announcer import Announcer
from sessions_adapters.postgres.clock import PostgresClock
from sessions_adapters.postgres.config import PostgresConfig
from sessions_adapters.postgres.connecting import Connection, Pool, open_pool
from sessions_adapters.postgres.failures import Failure, is_lost, is_unsent, translated, translated_before
from sessions_adapters.postgres.followers import WatchingFollowers
from sessions_adapters.postgres.leaders import Leaders
from sessions_adapters.postgres.listener import Listener
from sessions_adapters.postgres.log_writer import LogWriter
from sessions_adapters.postgres.pages import Pages
from sessions_adapters.postgres.trimmer import Trimmer
from sessions_adapters.postgres.values import to_ms
from sessions_adapters.postgres.waiters import WatchingWaiters
from sessions_adapters.postgres.waits import Waits
from sessions_core.domain.channel import Record
from sessions_core.domain.session import to_milliseconds
from sessions_core.errors import StoreUnavailableError, UnavailableError
from sessions_core.ports.clock import Clock
from sessions_core.ports.environment_store import Cipher

T = TypeVar("T")

_CLOSING_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 1.0
_logger = logging.getLogger("sessions.postgres")
_logger.addHandler(logging.NullHandler())


@attrs.define(eq=False)
class PostgresDatabase:
    """An open database. Made by :func:`open_database`; belongs to the event loop that it was opened on.

    Attributes:
        given_clock: Replaces the database's clock in a test.
        clock: The database's clock, or the one given.
        name: Tells this process's news from those of others.
        topic: What notifications are sent under.
        log: Carries out appends.
        followers: Who reads channels on and on.
        waiters: Who waits for a waitpoint.
        waits: Which channels are waited on.
        leaders: Who leads.
        announcer: Tells other processes.
        listener: Hears what other processes tell.
        trimmer: Deletes what was let go.
        pages: Reads many rows, without those that cannot be read.
    """

    config: PostgresConfig
    pool: Pool = attrs.field(repr=False)
    given_clock: Clock | None
    cipher: Cipher | None = attrs.field(repr=False)
    name: str = attrs.field(init=False, factory=lambda: secrets.token_hex(8))
    followers: WatchingFollowers = attrs.field(init=False, repr=False)
    listener: Listener = attrs.field(init=False, repr=False)
    announcer: Announcer = attrs.field(init=False, repr=False)
    log: LogWriter = attrs.field(init=False, repr=False)
    trimmer: Trimmer = attrs.field(init=False, repr=False)
    waiters: WatchingWaiters = attrs.field(init=False, factory=WatchingWaiters, repr=False)
    waits: Waits = attrs.field(init=False, factory=Waits, repr=False)
    leaders: Leaders = attrs.field(init=False, factory=Leaders, repr=False)
    pages: Pages = attrs.field(init=False, factory=Pages, repr=False)
    _own_clock: PostgresClock = attrs.field(init=False, factory=PostgresClock, repr=False)

    def __attrs_post_init__(self) -> None:
        config, patience = self.config, self.config.connect_timeout.total_seconds()
        self.followers = WatchingFollowers(config.buffered_bytes)
        watchers = (self.followers, self.waiters, self.waits, self._own_clock)
        self.listener = Listener(config, self.topic, self.name, watchers)
        self.announcer = Announcer(self.listener.notify, self.name, config.notify_interval.total_seconds())
        self.log = LogWriter(config, self.at_ms, self.published)
        self.trimmer = Trimmer(self.pool, patience, self.at)

    @property
    def topic(self) -> str:
        return f"sessions_{self.config.schema}"

    @property
    def clock(self) -> Clock:
        return self.given_clock or self._own_clock

    async def ask_the_time(self, connection: Connection) -> None:
        """Set the clock by the server's: nothing here may be decided by this machine's, not even at first."""
        await self._own_clock.look(connection, anew=True)

    def at(self) -> datetime | None:
        """Return the time to be handed to a statement: None for the database's own."""
        return None if self.given_clock is None else to_milliseconds(self.given_clock.now())

    def at_ms(self) -> int | None:
        """Return the same in Unix milliseconds."""
        return None if self.given_clock is None else to_ms(self.given_clock.now())

    def published(self, stored: Mapping[bytes, Sequence[Record]]) -> None:
        """Let everybody know of new records, by the keys of their channels."""
        self.followers.publish(stored)
        for channel, records in stored.items():
            self.announcer.announce(channel, records[-1].seq + 1)

    @asynccontextmanager
    async def connection(self, failure: Failure = StoreUnavailableError) -> AsyncIterator[Connection]:
        """Take a connection out of the pool for the block; raise *failure* instead of the driver's errors in it."""
        with translated(failure):
            async with AsyncExitStack() as stack:
                with translated_before(failure):
                    patience = self.config.connect_timeout.total_seconds()
                    connection = await stack.enter_async_context(self.pool.acquire(timeout=patience))
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Make the block one transaction: committed at its end, rolled back if it fails or is cancelled."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def fetch(
        self, statement: str, *values: Any, failure: Failure = StoreUnavailableError
    ) -> list[asyncpg.Record]:
        """Return the rows of *statement*, which only reads: it is sent again if its connection gets lost."""
        return await self._carry_out(lambda connection: connection.fetch(statement, *values), failure, is_lost)

    async def fetchrow(
        self, statement: str, *values: Any, failure: Failure = StoreUnavailableError
    ) -> asyncpg.Record | None:
        """Return the first row of *statement*, which only reads."""
        return await self._carry_out(lambda connection: connection.fetchrow(statement, *values), failure, is_lost)

    async def change(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """Carry *statement* out, a transaction by itself; return its rows."""
        return await self._carry_out(
            lambda connection: connection.fetch(statement, *values), StoreUnavailableError, is_unsent
        )

    async def execute(self, statement: str, *values: Any) -> int:
        """Carry *statement* out, a transaction by itself; return how many rows it has changed."""
        return changed(
            await self._carry_out(
                lambda connection: connection.execute(statement, *values), StoreUnavailableError, is_unsent
            )
        )

    async def _carry_out(
        self,
        statement: Callable[[Connection], Awaitable[T]],
        failure: Failure,
        may_repeat: Callable[[BaseException | None], bool],
    ) -> T:
        """Try another connection after a failure that allows it: at worst all idle ones have just been lost."""
        for _ in range(self.config.connections):
            try:
                async with self.connection(failure) as connection:
                    return await statement(connection)
            except UnavailableError as error:
                if not may_repeat(error.__cause__):
                    raise
        raise failure


def changed(status: str) -> int:
    """Return the number of rows in the server's answer, such as ``UPDATE 1``."""
    return int(status.rpartition(" ")[2])


@asynccontextmanager
async def open_database(
    config: PostgresConfig, *, clock: Clock | None = None, cipher: Cipher | None = None
) -> AsyncIterator[PostgresDatabase]:
    """Open the database.

    On leaving, what was taken is written and answered, endless calls (follow, wait) end with an UnavailableError, leaders
    are cancelled, and all connections are closed.

    Args:
        config: Says where it is.
        clock: Replaces the database's clock, in tests.
        cipher: Needed for root keys.

    Raises:
        IncompatibleStoreError: It is not up to date, or newer than this software.
        StoreUnavailableError: It cannot be reached.
    """
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_pool(config))
        db = PostgresDatabase(config, pool, clock, cipher)
        async with db.connection() as connection:
            await schema.check(connection, config)
            await db.ask_the_time(connection)
        await stack.enter_async_context(_served(db))
        yield db


@asynccontextmanager
async def _served(db: PostgresDatabase) -> AsyncIterator[None]:
    """Run what works in the background inside the block."""
    loop = asyncio.get_running_loop()
    writing = loop.create_task(_carry_on(db.log.run))
    works = (db.announcer.run, db.listener.run, db.trimmer.run)
    others = [loop.create_task(_carry_on(work)) for work in works]
    try:
        yield
    finally:
        db.followers.end()
        db.waiters.end()
        db.leaders.end()
        with anyio.move_on_after(_CLOSING_SECONDS, shield=True):
            db.log.stop()
            await asyncio.wait([writing])
            await db.announcer.tell()
        db.log.abandon()
        with anyio.CancelScope(shield=True):
            await _end((writing, *others))


async def _carry_on(work: Callable[[], Awaitable[None]]) -> None:
    """Do *work* until it ends by itself, again after a failure: it expects the driver's, so this one is a mistake of ours."""
    while True:
        try:
            return await work()
        except Exception:
            _logger.exception("%s failed; it is started again", work.__qualname__)
        await asyncio.sleep(_PAUSE_SECONDS)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel *tasks* until they have ended: where a connection does not answer, the driver may make a time-out of it."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_PAUSE_SECONDS)
