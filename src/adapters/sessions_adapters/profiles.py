"""Named choices of adapters. The adapters are imported only when their profile is opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import attrs

from sessions_adapters.local_runs import LocalRunDispatcher
from sessions_adapters.system import RandomIds, SystemClock
from sessions_core.agents import Agents
from sessions_core.domain.events import Event
from sessions_core.errors import IncompatibleStoreError, InvalidError
from sessions_core.facade import Ports, Sessions, Settings
from sessions_core.ports.clock import Clock
from sessions_core.ports.environment_store import Cipher, EnvironmentStore
from sessions_core.ports.observer import Observer
from sessions_core.ports.run_dispatcher import RunDispatcher
from sessions_core.ports.session_tokens import SessionTokens

if TYPE_CHECKING:
    from sessions_adapters.sqlite import SqliteDatabase

MEMORY: Final = "memory"
EMBEDDED: Final = "embedded"
PROFILES: Final = (MEMORY, EMBEDDED)
DATABASE_NAME: Final = "sessions.db"
KEY_NAME: Final = "encryption.key"
_REMEDY: Final = (
    "the root keys in the database can be read with that key alone: restore the one from the backup. If there is none, "
    "they are lost, and `sessions env rotate-key` cannot help by itself: delete them with the SQL statement "
    '"delete from access_key where sealed is not null", then make new ones with `sessions env rotate-key`'
)


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
    session_tokens: SessionTokens | None = None,
) -> AsyncIterator[Sessions]:
    """Open sessions with the adapters of *profile*, and carry out runs of *agents* in this process.

    Args:
        profile: ``memory`` (nothing survives the process) or ``embedded`` (SQLite).
        data: Directory of the embedded profile; made if it does not exist. This process becomes its only owner.
        agents: Tasks that runs here can have; runs of other tasks wait.
        observer: Told what happens.
        clock: Replaces this machine's clock.
        settings: How the core behaves.
        session_tokens: Signs the token that each turn-complete carries for the session's clients; none of them does without.

    Raises:
        InvalidError: No such profile, or no directory given.
        IncompatibleStoreError: The directory is in use, was written by a newer version, or lacks its encryption key.
    """
    settings = settings or Settings(owns_data=True)
    async with AsyncExitStack() as stack:
        dispatcher = LocalRunDispatcher()
        ports = await _open_ports(
            stack, profile, data, dispatcher, observer=observer or _Deaf(), clock=clock or SystemClock()
        )
        sessions = Sessions(attrs.evolve(ports, session_tokens=session_tokens), agents, settings)
        await stack.enter_async_context(sessions.running())
        executor = sessions.executor
        await stack.enter_async_context(
            dispatcher.serve(executor.execute, drain=executor.drain, patience=settings.drain)
        )
        yield sessions


@asynccontextmanager
async def open_environments(
    profile: str = EMBEDDED, *, data: Path | None = None, clock: Clock | None = None, create: bool = False
) -> AsyncIterator[EnvironmentStore]:
    """Open only the environments and keys of *profile*; works beside a running server.

    Args:
        profile: ``embedded``.
        data: Directory of the embedded profile.
        clock: Replaces this machine's clock.
        create: Make the directory and the database if they do not exist.

    Raises:
        InvalidError: This profile keeps no environments outside a server, or no directory was given.
        IncompatibleStoreError: There is no database, or it was written by a newer version or with another encryption key.
    """
    if profile != EMBEDDED or data is None:
        raise InvalidError("profile", "keeps no environments outside a running server")
    if not create and not await anyio.Path(data / DATABASE_NAME).is_file():
        raise IncompatibleStoreError(f"{data / DATABASE_NAME} does not exist; name the data directory of the server")
    from sessions_adapters import sqlite

    async with _database(data, clock or SystemClock(), owner=False) as db:
        yield sqlite.SqliteEnvironmentStore(db)


@asynccontextmanager
async def _database(data: Path, clock: Clock, *, owner: bool) -> AsyncIterator[SqliteDatabase]:
    from sessions_adapters import sqlite

    await anyio.Path(data).mkdir(parents=True, exist_ok=True, mode=0o700)
    config = sqlite.SqliteConfig(path=data / DATABASE_NAME, owner=owner)
    async with sqlite.open_database(config, clock=clock) as db:
        db.cipher = _cipher(data, await sqlite.find_sealed_key(db))
        yield db


def _cipher(data: Path, sealed: bytes | None) -> Cipher:
    """Return the cipher of *data*. Its key is made only while nothing is encrypted, else tried on *sealed*."""
    from sessions_adapters.fernet import FernetCipher, load_key, load_or_create_key

    path = data / KEY_NAME
    if sealed is None:
        return FernetCipher(load_or_create_key(path))
    if not path.exists():
        raise IncompatibleStoreError(f"{path} is missing; {_REMEDY}")
    cipher = FernetCipher(load_key(path))
    try:
        cipher.decrypt(sealed)
    except IncompatibleStoreError as exc:
        raise IncompatibleStoreError(f"{path} is not the key that was used before; {_REMEDY}") from exc
    return cipher


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

    db = await stack.enter_async_context(_database(data, clock, owner=True))
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
