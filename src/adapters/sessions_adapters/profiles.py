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
    from sessions_adapters.postgres import PostgresConfig, PostgresDatabase
    from sessions_adapters.sqlite import SqliteDatabase

MEMORY: Final = "memory"
EMBEDDED: Final = "embedded"
POSTGRES: Final = "postgres"
PROFILES: Final = (MEMORY, EMBEDDED, POSTGRES)
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


@attrs.frozen
class _Place:
    """Where the data is."""

    data: Path | None
    url: str | None = attrs.field(default=None, repr=False)
    encryption_key: str | None = attrs.field(default=None, repr=False)

    @property
    def directory(self) -> Path:
        """The directory.

        Raises:
            InvalidError: None was given.
        """
        if self.data is None:
            raise InvalidError("data", "must name a directory for this profile")
        return self.data

    def config(self) -> PostgresConfig:
        """Say where the Postgres database is.

        Raises:
            InvalidError: No database was given.
        """
        if not self.url:
            raise InvalidError("url", "must name a database for the postgres profile (SESSIONS_DATABASE_URL)")
        from sessions_adapters import postgres

        return postgres.PostgresConfig(url=self.url)


@asynccontextmanager
async def open_sessions(
    profile: str = EMBEDDED,
    *,
    data: Path | None = None,
    url: str | None = None,
    encryption_key: str | None = None,
    agents: Agents | None = None,
    observer: Observer | None = None,
    clock: Clock | None = None,
    settings: Settings | None = None,
    session_tokens: SessionTokens | None = None,
) -> AsyncIterator[Sessions]:
    """Open sessions with the adapters of *profile*, and carry out runs of *agents* in this process.

    Args:
        profile: ``memory`` (nothing survives the process), ``embedded`` (SQLite) or ``postgres``.
        data: Directory of the embedded profile; made if it does not exist. This process becomes its only owner. In the
            postgres profile it only holds the encryption key, and only if none is given.
        url: The database of the postgres profile, which any number of processes may share.
        encryption_key: What protects root keys in the postgres profile, the same for all processes.
        agents: Tasks that runs here can have; runs of other tasks wait. In the postgres profile every process should have
            the same ones: whichever leads takes up what others have left.
        observer: Told what happens.
        clock: Replaces this machine's clock, or that of the Postgres server.
        settings: How the core behaves. No process owns the data of the postgres profile, whatever they say.
        session_tokens: Signs the token that each turn-complete carries for the session's clients; none of them does without.

    Raises:
        InvalidError: No such profile, or no directory or database given.
        IncompatibleStoreError: The directory is in use, the data was written by a newer version, lacks its encryption key,
            or needs ``sessions migrate``.
        StoreUnavailableError: The database gives no answer.
    """
    settings = settings or Settings(owns_data=True)
    if profile == POSTGRES:
        settings = attrs.evolve(settings, owns_data=False)
    async with AsyncExitStack() as stack:
        dispatcher = LocalRunDispatcher()
        place = _Place(data, url, encryption_key)
        ports = await _open_ports(stack, profile, place, dispatcher, observer=observer or _Deaf(), clock=clock)
        sessions = Sessions(attrs.evolve(ports, session_tokens=session_tokens), agents, settings)
        await stack.enter_async_context(sessions.running())
        executor = sessions.executor
        await stack.enter_async_context(
            dispatcher.serve(executor.execute, drain=executor.drain, patience=settings.drain)
        )
        yield sessions


@asynccontextmanager
async def open_environments(
    profile: str = EMBEDDED,
    *,
    data: Path | None = None,
    url: str | None = None,
    encryption_key: str | None = None,
    clock: Clock | None = None,
    create: bool = False,
) -> AsyncIterator[EnvironmentStore]:
    """Open only the environments and keys of *profile*; works beside a running server.

    Args:
        profile: ``embedded`` or ``postgres``.
        data: As for :func:`open_sessions`.
        url: As for :func:`open_sessions`.
        encryption_key: As for :func:`open_sessions`.
        clock: Replaces this machine's clock, or that of the Postgres server.
        create: Make the directory and the database of the embedded profile if they do not exist.

    Raises:
        InvalidError: This profile keeps no environments outside a server, or no directory was given.
        IncompatibleStoreError: There is no database, or it was written by a newer version or with another encryption key.
    """
    if profile == POSTGRES:
        from sessions_adapters import postgres

        async with _postgres_database(_Place(data, url, encryption_key), clock) as database:
            yield postgres.PostgresEnvironmentStore(database)
        return
    if profile != EMBEDDED or data is None:
        raise InvalidError("profile", "keeps no environments outside a running server")
    if not create and not await anyio.Path(data / DATABASE_NAME).is_file():
        raise IncompatibleStoreError(f"{data / DATABASE_NAME} does not exist; name the data directory of the server")
    from sessions_adapters import sqlite

    async with _database(data, clock or SystemClock(), owner=False) as db:
        yield sqlite.SqliteEnvironmentStore(db)


async def migrate_database(profile: str, *, url: str | None = None) -> list[str]:
    """Bring the database of *profile* up to date; return the names of the migrations that were applied.

    Safe to call from many processes at once, and beside a running server.

    Raises:
        InvalidError: This profile has no database that is migrated by hand, or none was given.
        IncompatibleStoreError: It is newer than this software.
        StoreUnavailableError: It gives no answer, or refuses.
    """
    if profile != POSTGRES:
        raise InvalidError("profile", f"{profile} needs no migrations by hand: they are applied when the server starts")
    config = _Place(None, url).config()
    from sessions_adapters import postgres

    return await postgres.migrate(config)


@asynccontextmanager
async def _postgres_database(place: _Place, clock: Clock | None) -> AsyncIterator[PostgresDatabase]:
    config = place.config()
    from sessions_adapters import postgres

    async with postgres.open_database(config, clock=clock) as db:
        db.cipher = _shared_cipher(place, await postgres.find_sealed_key(db))
        yield db


def _shared_cipher(place: _Place, sealed: bytes | None) -> Cipher:
    """Return the cipher that all processes share: of the key given, else of the one in the directory."""
    if place.encryption_key is None:
        return _cipher(place.directory, sealed)
    from sessions_adapters.fernet import FernetCipher

    cipher = FernetCipher(place.encryption_key.encode())
    try:
        if sealed is not None:
            cipher.decrypt(sealed)
    except IncompatibleStoreError as exc:
        raise IncompatibleStoreError(f"the encryption key is not the one that was used before; {_REMEDY}") from exc
    return cipher


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
    place: _Place,
    dispatcher: RunDispatcher,
    *,
    observer: Observer,
    clock: Clock | None,
) -> Ports:
    if profile == MEMORY:
        return _memory(dispatcher, observer, clock or SystemClock())
    if profile == EMBEDDED:
        return await _embedded(stack, place.directory, dispatcher, observer, clock or SystemClock())
    if profile == POSTGRES:
        return await _postgres(stack, place, dispatcher, observer, clock)
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


async def _postgres(
    stack: AsyncExitStack, place: _Place, dispatcher: RunDispatcher, observer: Observer, clock: Clock | None
) -> Ports:
    db = await stack.enter_async_context(_postgres_database(place, clock))
    from sessions_adapters import postgres

    return Ports(
        sessions=postgres.PostgresSessionStore(db),
        # What is dispatched here is in this process's memory alone. A run counts as dispatched only once it has begun, so
        # when a process dies with runs that it had not begun, another one takes them up.
        runs=postgres.PostgresRunStore(db, keeps_dispatches=False),
        backlog=postgres.PostgresBacklog(db),
        index=postgres.PostgresSessionIndex(db),
        log=postgres.PostgresChannelLog(db),
        waitpoints=postgres.PostgresWaitpointStore(db),
        wait_registry=postgres.PostgresWaitRegistry(db),
        environments=postgres.PostgresEnvironmentStore(db),
        tokens=postgres.PostgresTokenLedger(db),
        leader=postgres.PostgresLeaderLock(db),
        dispatcher=dispatcher,
        clock=db.clock,
        ids=RandomIds(),
        observer=observer,
    )
