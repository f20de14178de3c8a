"""Named choices of adapters. The adapters are imported only when their profile is opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import anyio

from sessions_adapters.local_runs import LocalRunDispatcher
from sessions_adapters.system import RandomIds, SystemClock
from sessions_core.agents import Agents
from sessions_core.domain.events import Event
from sessions_core.errors import InvalidError
from sessions_core.facade import Ports, Sessions, Settings
from sessions_core.ports.clock import Clock
from sessions_core.ports.environment_store import Cipher, EnvironmentStore
from sessions_core.ports.observer import Observer
from sessions_core.ports.run_dispatcher import RunDispatcher

MEMORY: Final = "memory"
EMBEDDED: Final = "embedded"
PROFILES: Final = (MEMORY, EMBEDDED)
DATABASE_NAME: Final = "sessions.db"
KEY_NAME: Final = "encryption.key"


def new_id() -> str:
    """Return a fresh id of 25 characters, for things made outside a running server."""
    return RandomIds().new()


class _Deaf(Observer):
    """Takes no notice of anything."""

    def __call__(self, event: Event) -> None:
        """Do nothing."""


@asynccontextmanager
async def open_sessions(
    profile: str = EMBEDDED,
    *,
    data: Path | None = None,
    agents: Agents | None = None,
    observer: Observer | None = None,
    clock: Clock | None = None,
    settings: Settings | None = None,
) -> AsyncIterator[Sessions]:
    """Open sessions with the adapters of *profile*, and carry out runs of *agents* in this process.

    Args:
        profile: ``memory`` (nothing survives the process) or ``embedded`` (SQLite).
        data: Directory of the embedded profile; made if it does not exist. This process becomes its only owner.
        agents: Tasks that runs here can have; runs of other tasks wait.
        observer: Told what happens.
        clock: Replaces this machine's clock.
        settings: How the core behaves.

    Raises:
        InvalidError: No such profile, or no directory given.
        IncompatibleStoreError: The directory is in use, or was written by a newer version.
    """
    settings = settings or Settings(owns_data=True)
    async with AsyncExitStack() as stack:
        dispatcher = LocalRunDispatcher()
        ports = await _open_ports(
            stack, profile, data, dispatcher, observer=observer or _Deaf(), clock=clock or SystemClock()
        )
        sessions = Sessions(ports, agents, settings)
        await stack.enter_async_context(sessions.running())
        executor = sessions.executor
        await stack.enter_async_context(
            dispatcher.serve(executor.execute, drain=executor.drain, patience=settings.drain)
        )
        yield sessions


@asynccontextmanager
async def open_environments(
    profile: str = EMBEDDED, *, data: Path | None = None, clock: Clock | None = None
) -> AsyncIterator[EnvironmentStore]:
    """Open only the environments and keys of *profile*; works beside a running server.

    Raises:
        InvalidError: This profile keeps no environments outside a server, or no directory was given.
        IncompatibleStoreError: The directory was written by a newer version.
    """
    if profile != EMBEDDED or data is None:
        raise InvalidError("profile", "keeps no environments outside a running server")
    from sessions_adapters import sqlite

    config = sqlite.SqliteConfig(path=data / DATABASE_NAME, owner=False)
    async with sqlite.open_database(config, clock=clock or SystemClock(), cipher=await _cipher(data)) as db:
        yield sqlite.SqliteEnvironmentStore(db)


async def _cipher(data: Path) -> Cipher:
    from sessions_adapters.fernet import FernetCipher, load_or_create_key

    await anyio.Path(data).mkdir(parents=True, exist_ok=True, mode=0o700)
    return FernetCipher(load_or_create_key(data / KEY_NAME))


async def _open_ports(
    stack: AsyncExitStack,
    profile: str,
    data: Path | None,
    dispatcher: RunDispatcher,
    *,
    observer: Observer,
    clock: Clock,
) -> Ports:
    if profile == MEMORY:
        return _memory(dispatcher, observer, clock)
    if profile == EMBEDDED:
        if data is None:
            raise InvalidError("data", "must name a directory for the embedded profile")
        return await _embedded(stack, data, dispatcher, observer, clock)
    raise InvalidError("profile", f"must be one of {', '.join(PROFILES)}")


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
        leader=memory.InMemoryLeaderLock(),
        dispatcher=dispatcher,
        clock=clock,
        ids=RandomIds(),
        observer=observer,
    )


async def _embedded(
    stack: AsyncExitStack, data: Path, dispatcher: RunDispatcher, observer: Observer, clock: Clock
) -> Ports:
    from sessions_adapters import memory, sqlite

    cipher = await _cipher(data)
    config = sqlite.SqliteConfig(path=data / DATABASE_NAME, owner=True)
    db = await stack.enter_async_context(sqlite.open_database(config, clock=clock, cipher=cipher))
    return Ports(
        sessions=sqlite.SqliteSessionStore(db),
        runs=sqlite.SqliteRunStore(db),
        backlog=sqlite.SqliteBacklog(db),
        index=sqlite.SqliteSessionIndex(db),
        log=sqlite.SqliteChannelLog(db),
        waitpoints=sqlite.SqliteWaitpointStore(db),
        # This process owns the data, so what is registered in its memory is all there is.
        wait_registry=memory.InMemoryWaitRegistry(clock),
        environments=sqlite.SqliteEnvironmentStore(db),
        tokens=sqlite.SqliteTokenLedger(db),
        leader=sqlite.SqliteLeaderLock(db),
        dispatcher=dispatcher,
        clock=clock,
        ids=RandomIds(),
        observer=observer,
    )
