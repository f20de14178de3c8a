"""The stores, which have an adapter for every port. Each is imported when it is opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio

from sessions_adapters.profiles.backends import MEMORY, Backends
from sessions_adapters.profiles.keys import find_cipher
from sessions_adapters.system import RandomIds, SystemClock
from sessions_core.facade import Ports
from sessions_core.ports.clock import Clock
from sessions_core.ports.observer import Observer
from sessions_core.ports.run_dispatcher import RunDispatcher

if TYPE_CHECKING:
    from sessions_adapters.postgres import PostgresDatabase
    from sessions_adapters.sqlite import SqliteDatabase


async def open_store(
    stack: AsyncExitStack, backends: Backends, dispatcher: RunDispatcher, observer: Observer, clock: Clock | None
) -> Ports:
    """Open the store of *backends* for as long as *stack* lives, and make every port of it."""
    if backends.uses_postgres:
        db = await stack.enter_async_context(open_postgres(backends, clock))
        return _postgres(db, dispatcher, observer, keeps_dispatches=not backends.runs_are_local)
    if backends.profile == MEMORY:
        return _memory(dispatcher, observer, clock or SystemClock())
    file = await stack.enter_async_context(open_sqlite(backends, clock, owner=True))
    return _sqlite(file, dispatcher, observer, keeps_dispatches=not backends.runs_are_local)


@asynccontextmanager
async def open_postgres(backends: Backends, clock: Clock | None) -> AsyncIterator[PostgresDatabase]:
    """Open the database with what protects its root keys."""
    config = backends.postgres()
    from sessions_adapters import postgres

    async with postgres.open_database(config, clock=clock) as db:
        db.cipher = find_cipher(backends, await postgres.find_sealed_keys(db))
        yield db


@asynccontextmanager
async def open_sqlite(backends: Backends, clock: Clock | None, *, owner: bool) -> AsyncIterator[SqliteDatabase]:
    """Open the database with what protects its root keys. Directory and file are made if they do not exist."""
    config = backends.sqlite(owner=owner)
    from sessions_adapters import sqlite

    await anyio.Path(backends.directory).mkdir(parents=True, exist_ok=True, mode=0o700)
    async with sqlite.open_database(config, clock=clock or SystemClock()) as db:
        db.cipher = find_cipher(backends, await sqlite.find_sealed_keys(db))
        yield db


def _memory(dispatcher: RunDispatcher, observer: Observer, clock: Clock) -> Ports:
    from sessions_adapters import memory

    tables = memory.Tables(clock)
    return Ports(
        sessions=memory.InMemorySessionStore(tables),
        runs=memory.InMemoryRunStore(tables),
        backlog=memory.InMemoryBacklog(tables),
        index=memory.InMemorySessionIndex(tables),
        log=memory.InMemoryChannelLog(clock),
        waitpoints=memory.InMemoryWaitpointStore(clock),
        wait_registry=memory.InMemoryWaitRegistry(clock),
        environments=memory.InMemoryEnvironmentStore(clock),
        tokens=memory.InMemoryTokenLedger(clock),
        rate_limiter=memory.InMemoryRateLimiter(clock),
        leader=memory.InMemoryLeaderLock(),
        dispatcher=dispatcher,
        clock=clock,
        ids=RandomIds(),
        observer=observer,
    )


def _sqlite(db: SqliteDatabase, dispatcher: RunDispatcher, observer: Observer, *, keeps_dispatches: bool) -> Ports:
    from sessions_adapters import memory, sqlite

    return Ports(
        sessions=sqlite.SqliteSessionStore(db),
        runs=sqlite.SqliteRunStore(db, keeps_dispatches=keeps_dispatches),
        backlog=sqlite.SqliteBacklog(db),
        index=sqlite.SqliteSessionIndex(db),
        log=sqlite.SqliteChannelLog(db),
        waitpoints=sqlite.SqliteWaitpointStore(db),
        # This process owns the data, so what is registered in its memory is all there is.
        wait_registry=memory.InMemoryWaitRegistry(db.clock),
        environments=sqlite.SqliteEnvironmentStore(db),
        tokens=sqlite.SqliteTokenLedger(db),
        rate_limiter=memory.InMemoryRateLimiter(db.clock),
        leader=sqlite.SqliteLeaderLock(db),
        dispatcher=dispatcher,
        clock=db.clock,
        ids=RandomIds(),
        observer=observer,
    )


def _postgres(db: PostgresDatabase, dispatcher: RunDispatcher, observer: Observer, *, keeps_dispatches: bool) -> Ports:
    from sessions_adapters import memory, postgres

    return Ports(
        sessions=postgres.PostgresSessionStore(db),
        # What is dispatched to this process is in its memory alone. There a run counts as dispatched only once it has
        # begun, so when a process dies with runs that it had not begun, another one takes them up.
        runs=postgres.PostgresRunStore(db, keeps_dispatches=keeps_dispatches),
        backlog=postgres.PostgresBacklog(db),
        index=postgres.PostgresSessionIndex(db),
        log=postgres.PostgresChannelLog(db),
        waitpoints=postgres.PostgresWaitpointStore(db),
        wait_registry=postgres.PostgresWaitRegistry(db),
        environments=postgres.PostgresEnvironmentStore(db),
        tokens=postgres.PostgresTokenLedger(db),
        # Each process counts for itself; to count for all is a round trip more on the way of every request.
        rate_limiter=memory.InMemoryRateLimiter(db.clock),
        leader=postgres.PostgresLeaderLock(db),
        dispatcher=dispatcher,
        clock=db.clock,
        ids=RandomIds(),
        observer=observer,
        # A given clock belongs to the event loop of a test, which also says how time passes there.
        open_beat=None if db.given_clock else partial(postgres.open_beat, db.config),
    )
