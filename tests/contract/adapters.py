"""The adapters under test, listed once.

A technology offers some of the ports. The suites take ports as fixtures and know nothing of technologies; whatever a
suite looks at besides its port comes from here, too.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
import uuid
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import attrs
import pytest

from contract.makers import START
from contract.replicas import CaughtUpIndex, Feed, FeedingStore
from harness import databases, feeding
from harness.clickhouse import CLICKHOUSE
from harness.redis import REDIS
from harness.s2 import S2, new_basin
from sessions_adapters import memory
from sessions_adapters.local_runs import LocalRunDispatcher
from sessions_core.domain.ids import RunId
from sessions_core.errors import IncompatibleStoreError
from sessions_core.ports.backlog import Backlog
from sessions_core.ports.change_feed import ChangeFeed
from sessions_core.ports.channel_log import ChannelLog
from sessions_core.ports.dead_letters import DeadLetters
from sessions_core.ports.environment_store import EnvironmentStore, TokenLedger
from sessions_core.ports.leader_lock import LeaderLock
from sessions_core.ports.rate_limiter import RateLimiter
from sessions_core.ports.run_dispatcher import RunDispatcher
from sessions_core.ports.run_store import RunStore
from sessions_core.ports.session_index import IndexWriter, SessionIndex
from sessions_core.ports.session_store import SessionStore
from sessions_core.ports.waitpoint_store import WaitpointStore, WaitRegistry
from sessions_core.testing import ManualClock


class LimiterTime(Protocol):
    """The time of a limiter."""

    @abstractmethod
    def now(self) -> timedelta:
        """Return what has passed since some moment."""

    @abstractmethod
    async def let_pass(self, by: timedelta) -> None:
        """Return when at least so much more has passed."""


@attrs.frozen
class ManualTime(LimiterTime):
    """Passes when it is told to."""

    clock: ManualClock

    def now(self) -> timedelta:
        return self.clock.now() - START

    async def let_pass(self, by: timedelta) -> None:
        self.clock.advance(by)


@attrs.frozen
class RealTime(LimiterTime):
    """Passes by itself."""

    def now(self) -> timedelta:
        return timedelta(seconds=time.monotonic())

    async def let_pass(self, by: timedelta) -> None:
        await anyio.sleep(by.total_seconds())


class ServedDispatcher(RunDispatcher, Protocol):
    """A dispatcher and the worker at its other end, which is where the suite looks."""

    @abstractmethod
    def serve(
        self, execute: Callable[[RunId], Awaitable[None]], *, drain: Callable[[], None], patience: timedelta
    ) -> AbstractAsyncContextManager[None]:
        """Carry runs out inside the block; at its end call *drain*, and cancel those still busy after *patience*."""


@attrs.frozen(kw_only=True)
class Adapters:
    """What one technology offers, over one fresh and empty storage.

    Attributes:
        indexed_store: The store whose sessions the index shows, where that is not the ``session_store`` itself.
        changing_store: The store whose changes the feed streams.
        limiter_time: What the rate limiter goes by.
        stored_runs: Reaches around the ports: the ids of all run records that are stored.
        is_readable_at_rest: Reaches around the ports: whether a text is found in what is stored outside the process.
    """

    clock: ManualClock
    session_store: SessionStore | None = None
    run_store: RunStore | None = None
    backlog: Backlog | None = None
    session_index: SessionIndex | None = None
    index_writer: IndexWriter | None = None
    indexed_store: SessionStore | None = None
    channel_log: ChannelLog | None = None
    waitpoint_store: WaitpointStore | None = None
    wait_registry: WaitRegistry | None = None
    environment_store: EnvironmentStore | None = None
    token_ledger: TokenLedger | None = None
    leader_lock: LeaderLock | None = None
    run_dispatcher: ServedDispatcher | None = None
    change_feed: ChangeFeed | None = None
    changing_store: SessionStore | None = None
    dead_letters: DeadLetters | None = None
    rate_limiter: RateLimiter | None = None
    limiter_time: LimiterTime | None = None
    stored_runs: Callable[[], set[str]] | None = None
    is_readable_at_rest: Callable[[str], bool] | None = None


NOT_OFFERED_AS_FIXTURE: Final = frozenset({"clock"})
PORTS: Final = frozenset(field.name for field in attrs.fields(Adapters)) - NOT_OFFERED_AS_FIXTURE
ANY_RECORD: Final = "any_record"
"""Records of any size and with any headers can be stored."""
CAPABILITIES: Final = frozenset({ANY_RECORD})
FEED: Final = frozenset({"change_feed", "changing_store"})
LIMITER: Final = frozenset({"rate_limiter", "limiter_time"})
STORAGE: Final = PORTS - FEED - LIMITER - {"run_dispatcher", "index_writer", "indexed_store", "dead_letters"}


@attrs.frozen(kw_only=True)
class Technology:
    """A way to open adapters.

    Attributes:
        ports: Names of what it offers.
        backends: Event loops it runs on.
        needs: Markers of the systems that must run for it.
        examples: How many random stories a model tells it; fewer where each takes long.
        lacks: Names of the capabilities that it has not.
        guard_seqs: How many seqs of a channel a change of its guard takes.
    """

    name: str
    open: Callable[[ManualClock], AbstractAsyncContextManager[Adapters]]
    ports: frozenset[str] = STORAGE
    backends: tuple[str, ...] = ("asyncio",)
    needs: tuple[pytest.MarkDecorator, ...] = ()
    examples: int = 40
    lacks: frozenset[str] = frozenset()
    guard_seqs: int = 0

    def offers(self, wanted: frozenset[str]) -> bool:
        """Tell whether it has all *wanted* ports and capabilities. A store is indexed by an index that reads the same rows."""
        if wanted & self.lacks:
            return False
        wanted -= CAPABILITIES
        is_own_index = {"session_store", "session_index"} <= self.ports
        return wanted <= (self.ports | {"indexed_store"} if is_own_index else self.ports)


@attrs.frozen
class Case:
    """A technology on an event loop."""

    technology: Technology
    backend: str

    def __str__(self) -> str:
        return self.technology.name if self.backend == "asyncio" else f"{self.technology.name}-{self.backend}"


@asynccontextmanager
async def open_memory(clock: ManualClock) -> AsyncGenerator[Adapters]:
    """Open adapters on dictionaries."""
    tables = memory.Tables(clock)
    feed = memory.InMemoryChangeFeed(clock)
    feed.watch(tables)
    yield Adapters(
        clock=clock,
        change_feed=feed,
        changing_store=memory.InMemorySessionStore(tables),
        dead_letters=memory.InMemoryDeadLetters(),
        session_store=memory.InMemorySessionStore(tables),
        run_store=memory.InMemoryRunStore(tables),
        backlog=memory.InMemoryBacklog(tables),
        session_index=memory.InMemorySessionIndex(tables),
        channel_log=memory.InMemoryChannelLog(clock),
        waitpoint_store=memory.InMemoryWaitpointStore(clock),
        wait_registry=memory.InMemoryWaitRegistry(clock),
        environment_store=memory.InMemoryEnvironmentStore(clock),
        token_ledger=memory.InMemoryTokenLedger(clock),
        leader_lock=memory.InMemoryLeaderLock(),
        rate_limiter=memory.InMemoryRateLimiter(clock),
        limiter_time=ManualTime(clock),
        stored_runs=lambda: set(tables.runs),
        is_readable_at_rest=lambda _: False,  # nothing is ever at rest
    )


@asynccontextmanager
async def open_sqlite(clock: ManualClock) -> AsyncGenerator[Adapters]:
    """Open adapters on a fresh SQLite file."""
    from sessions_adapters import sqlite
    from sessions_adapters.fernet import FernetCipher

    cipher = FernetCipher(FernetCipher.generate_key())
    with tempfile.TemporaryDirectory(prefix="sessions-contract-") as folder:
        path = Path(folder) / "sessions.db"
        async with sqlite.open_database(sqlite.SqliteConfig(path=path), clock=clock, cipher=cipher) as db:
            yield Adapters(
                clock=clock,
                session_store=sqlite.SqliteSessionStore(db),
                run_store=sqlite.SqliteRunStore(db),
                backlog=sqlite.SqliteBacklog(db),
                session_index=sqlite.SqliteSessionIndex(db),
                channel_log=sqlite.SqliteChannelLog(db),
                waitpoint_store=sqlite.SqliteWaitpointStore(db),
                environment_store=sqlite.SqliteEnvironmentStore(db),
                token_ledger=sqlite.SqliteTokenLedger(db),
                leader_lock=sqlite.SqliteLeaderLock(db),
                stored_runs=lambda: _sqlite_runs(path),
                is_readable_at_rest=lambda text: _is_in_any_file(text, path.parent),
            )


@asynccontextmanager
async def open_postgres(clock: ManualClock) -> AsyncGenerator[Adapters]:
    """Open adapters on an empty Postgres database."""
    from sessions_adapters import postgres
    from sessions_adapters.fernet import FernetCipher

    cipher = FernetCipher(FernetCipher.generate_key())
    async with databases.find_databases().empty() as url:
        config = postgres.PostgresConfig(url=url, leader_check=timedelta(milliseconds=20))
        async with postgres.open_database(config, clock=clock, cipher=cipher) as db:
            yield Adapters(
                clock=clock,
                session_store=postgres.PostgresSessionStore(db),
                run_store=postgres.PostgresRunStore(db),
                backlog=postgres.PostgresBacklog(db),
                session_index=postgres.PostgresSessionIndex(db),
                channel_log=postgres.PostgresChannelLog(db),
                waitpoint_store=postgres.PostgresWaitpointStore(db),
                wait_registry=postgres.PostgresWaitRegistry(db),
                environment_store=postgres.PostgresEnvironmentStore(db),
                token_ledger=postgres.PostgresTokenLedger(db),
                leader_lock=postgres.PostgresLeaderLock(db),
                dead_letters=postgres.PostgresDeadLetters(db),
                stored_runs=lambda: {row["id"] for row in databases.look(url, "select id from sessions.run")},
                is_readable_at_rest=lambda text: databases.is_anywhere(url, text),
            )


@asynccontextmanager
async def open_postgres_feed(clock: ManualClock) -> AsyncGenerator[Adapters]:
    """Open a feed of an empty Postgres database, and what changes it."""
    from sessions_adapters import postgres
    from sessions_adapters.postgres import replication

    name = f"contract_{uuid.uuid4().hex}"
    options = replication.ReplicationConfig(slot=name, publication=name, status_interval=timedelta(milliseconds=20))
    async with databases.find_databases().empty() as url:
        config = postgres.PostgresConfig(url=url)
        async with postgres.open_database(config, clock=clock) as db:
            yield Adapters(
                clock=clock,
                change_feed=replication.PostgresChangeFeed(config, options),
                changing_store=postgres.PostgresSessionStore(db),
            )
        await feeding.remove_feed(url, name)


@asynccontextmanager
async def open_local_runs(clock: ManualClock) -> AsyncGenerator[Adapters]:
    """Open a dispatcher that carries runs out in this process."""
    yield Adapters(clock=clock, run_dispatcher=LocalRunDispatcher())


@asynccontextmanager
async def open_procrastinate(clock: ManualClock) -> AsyncGenerator[Adapters]:
    """Open a dispatcher over an empty queue. Its jobs are timed by the database."""
    from sessions_adapters import procrastinate

    async with databases.find_databases().empty() as url:
        config = procrastinate.ProcrastinateConfig(url=url)
        async with procrastinate.open_dispatcher(config) as dispatcher:
            yield Adapters(clock=clock, run_dispatcher=dispatcher)


@asynccontextmanager
async def open_webhook(clock: ManualClock) -> AsyncGenerator[Adapters]:
    """Open a dispatcher that posts to a receiver process, whose runs this process carries out."""
    from contract.received import open_received_dispatcher

    async with open_received_dispatcher() as dispatcher:
        yield Adapters(clock=clock, run_dispatcher=dispatcher)


@asynccontextmanager
async def open_redis(clock: ManualClock) -> AsyncGenerator[Adapters]:
    """Open a registry of waits and a limiter under keys that nobody else has. Redis keeps its own time."""
    from sessions_adapters import redis

    config = redis.RedisConfig(url=REDIS.get(), prefix=f"test:{uuid.uuid4().hex}:", timeout=timedelta(seconds=10))
    async with redis.RedisWaitRegistry.connect(config) as registry, redis.RedisRateLimiter.connect(config) as limiter:
        yield Adapters(clock=clock, wait_registry=registry, rate_limiter=limiter, limiter_time=RealTime())


@asynccontextmanager
async def open_clickhouse(clock: ManualClock) -> AsyncGenerator[Adapters]:
    """Open an index over an empty table, fed from a store in memory before each question."""
    from sessions_adapters import clickhouse

    config = clickhouse.ClickHouseConfig(url=CLICKHOUSE.get(), database="contract", timeout=timedelta(seconds=30))
    async with clickhouse.open_database(config) as database:
        try:
            await clickhouse.check_schema(database)
        except IncompatibleStoreError:
            await clickhouse.migrate(config)
        await database.run(lambda client: client.command("TRUNCATE TABLE sessions_v1"))
        writer = clickhouse.ClickHouseIndexWriter(database)
        index = clickhouse.ClickHouseSessionIndex(database, clock)
        feed = Feed(writer)
        yield Adapters(
            clock=clock,
            session_index=CaughtUpIndex(index, feed),
            index_writer=writer,
            indexed_store=FeedingStore(memory.InMemorySessionStore(memory.Tables(clock)), feed),
        )


@asynccontextmanager
async def open_s2(clock: ManualClock) -> AsyncGenerator[Adapters]:
    """Open a log over an empty basin."""
    from sessions_adapters import s2

    config = s2.S2Config(endpoint=S2.get(), basin=new_basin(), timeout=timedelta(seconds=10))
    async with s2.open_basin(config, clock=clock) as basin:
        yield Adapters(clock=clock, channel_log=s2.S2ChannelLog(basin))


def _sqlite_runs(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {run_id for (run_id,) in connection.execute("select id from run")}


def _is_in_any_file(text: str, folder: Path) -> bool:
    return any(text.encode() in file.read_bytes() for file in folder.iterdir())


TECHNOLOGIES: Final = (
    Technology(
        name="memory", open=open_memory, ports=STORAGE | FEED | LIMITER | {"dead_letters"}, backends=("asyncio", "trio")
    ),
    Technology(name="sqlite", open=open_sqlite, ports=STORAGE - {"wait_registry"}),
    Technology(
        name="local_runs",
        open=open_local_runs,
        ports=frozenset({"run_dispatcher"}),
        backends=("asyncio", "trio"),
    ),
    Technology(
        name="procrastinate",
        open=open_procrastinate,
        ports=frozenset({"run_dispatcher"}),
        needs=(pytest.mark.needs_postgres,),
    ),
    Technology(name="webhook", open=open_webhook, ports=frozenset({"run_dispatcher"})),
    Technology(
        name="postgres",
        open=open_postgres,
        ports=STORAGE | {"dead_letters"},
        needs=(pytest.mark.needs_postgres,),
    ),
    Technology(name="postgres-feed", open=open_postgres_feed, ports=FEED, needs=(pytest.mark.needs_postgres,)),
    Technology(
        name="clickhouse",
        open=open_clickhouse,
        ports=frozenset({"session_index", "index_writer", "indexed_store"}),
        needs=(pytest.mark.needs_clickhouse,),
        examples=12,
    ),
    Technology(name="redis", open=open_redis, ports=LIMITER | {"wait_registry"}, needs=(pytest.mark.needs_redis,)),
    Technology(
        name="s2",
        open=open_s2,
        ports=frozenset({"channel_log"}),
        needs=(pytest.mark.needs_s2,),
        examples=25,
        lacks=frozenset({ANY_RECORD}),
        guard_seqs=1,
    ),
)


def cases_with(ports: Iterable[str], *, backends: Iterable[str] = ("asyncio", "trio")) -> list[Any]:
    """Return pytest's parameters for the cases that offer all of *ports*."""
    wanted = frozenset(ports)
    return [
        pytest.param(Case(technology, backend), marks=technology.needs)
        for technology in TECHNOLOGIES
        if technology.offers(wanted)
        for backend in technology.backends
        if backend in backends
    ]
