"""Opening what a profile chooses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import attrs

from sessions_adapters.profiles.backends import DATABASE_NAME, EMBEDDED, MEMORY, PROCRASTINATE, Backends
from sessions_adapters.profiles.dispatchers import Workload, open_dispatcher, open_worker
from sessions_adapters.profiles.stores import open_postgres, open_sqlite, open_store
from sessions_adapters.profiles.systems import open_systems
from sessions_core.agents import Agents
from sessions_core.domain.events import Event
from sessions_core.errors import IncompatibleStoreError, InvalidError
from sessions_core.facade import Ports, Sessions, Settings
from sessions_core.ports.clock import Clock
from sessions_core.ports.environment_store import EnvironmentStore
from sessions_core.ports.observer import Observer
from sessions_core.ports.run_dispatcher import RunDispatcher
from sessions_core.ports.session_tokens import SessionTokens


class _Deaf(Observer):
    """Takes no notice of anything."""

    def __call__(self, event: Event) -> None:
        """Do nothing."""


@asynccontextmanager
async def open_sessions(
    profile: str | Backends = EMBEDDED,
    *,
    data: Path | None = None,
    url: str | None = None,
    encryption_key: str | None = None,
    agents: Agents | None = None,
    observer: Observer | None = None,
    clock: Clock | None = None,
    settings: Settings | None = None,
    session_tokens: SessionTokens | None = None,
    workload: Workload | None = None,
) -> AsyncIterator[Sessions]:
    """Open sessions with the adapters of *profile*, and carry out runs of *agents* in this process.

    Args:
        profile: ``memory`` (nothing survives the process), ``embedded`` (SQLite) or ``postgres``; or :class:`Backends`, which
            also say where everything is, and choose each system by itself. ``scale`` needs them, for its many addresses.
        data: Directory of the embedded profile; made if it does not exist. This process becomes its only owner. In the
            postgres profile it only holds the encryption key, and only if none is given.
        url: The database of the postgres profile, which any number of processes may share.
        encryption_key: What protects root keys, the same for all processes. None uses the key that lies in *data*, which is
            made with the first root key.
        agents: Tasks that runs here can have; runs of other tasks wait. On a shared database every process should have the
            same ones: whichever leads takes up what others have left. Where another dispatcher is chosen, nothing runs here.
        observer: Told what happens.
        clock: Replaces the clocks of this machine and of the systems.
        settings: How the core behaves. No process owns the data of a shared database, whatever they say.
        session_tokens: Signs the token that each turn-complete carries for the session's clients; none of them does without.
        workload: Which of the runs that wait for a worker are taken here, and how many. Without *agents* none are.

    Raises:
        InvalidError: No such profile, or a setting that it needs is missing or wrong.
        IncompatibleStoreError: The directory is in use, the data was written by a newer version, lacks its encryption key,
            or needs ``sessions migrate``.
        UnavailableError: A system gives no answer.
        ImportError: An extra is missing; names it.
    """
    backends = _chosen(profile, data, url, encryption_key)
    settings = settings or Settings(owns_data=True)
    if backends.uses_postgres or not backends.runs_are_local:
        settings = attrs.evolve(settings, owns_data=False)  # others may be carrying runs out
    async with AsyncExitStack() as stack:
        tasks, load = agents.names if agents else (), workload or Workload()
        dispatcher = await open_worker(stack, backends, tasks, load, settings.sweep.stall)
        ports = await _open_ports(stack, backends, dispatcher, observer or _Deaf(), clock)
        ports = await open_dispatcher(stack, backends, attrs.evolve(ports, session_tokens=session_tokens))
        sessions = Sessions(ports, agents, settings)
        await stack.enter_async_context(sessions.running())
        if backends.uses_postgres and backends.runs_are_local:
            await ports.backlog.forget_dispatches()  # by processes that had another dispatcher
        if tasks or backends.runs_are_local:
            executor = sessions.executor
            await stack.enter_async_context(
                dispatcher.serve(executor.execute, drain=executor.drain, patience=settings.drain)
            )
        yield sessions


@asynccontextmanager
async def open_environments(
    profile: str | Backends = EMBEDDED,
    *,
    data: Path | None = None,
    url: str | None = None,
    encryption_key: str | None = None,
    clock: Clock | None = None,
    create: bool = False,
) -> AsyncIterator[EnvironmentStore]:
    """Open only the environments and keys of *profile*; works beside a running server.

    Args:
        profile: As for :func:`open_sessions`.
        data: As for :func:`open_sessions`.
        url: As for :func:`open_sessions`.
        encryption_key: As for :func:`open_sessions`.
        clock: As for :func:`open_sessions`.
        create: Make the directory and the database of the embedded profile if they do not exist.

    Raises:
        InvalidError: This profile keeps no environments outside a server, or a setting that it needs is missing or wrong.
        IncompatibleStoreError: There is no database, or it was written by a newer version or with another encryption key.
        StoreUnavailableError: It gives no answer.
    """
    backends = _chosen(profile, data, url, encryption_key)
    if backends.uses_postgres:
        from sessions_adapters import postgres

        async with open_postgres(backends, clock) as shared:
            yield postgres.PostgresEnvironmentStore(shared)
        return
    if backends.profile == MEMORY:
        raise InvalidError("profile", "keeps no environments outside a running server")
    path = backends.directory / DATABASE_NAME
    if not create and not await anyio.Path(path).is_file():
        raise IncompatibleStoreError(f"{path} does not exist; name the data directory of the server")
    from sessions_adapters import sqlite

    async with open_sqlite(backends, clock, owner=False) as db:
        yield sqlite.SqliteEnvironmentStore(db)


async def migrate(backends: Backends, applied: Callable[[str], object] = lambda _: None) -> None:
    """Bring the systems of *backends* up to date, one after the other; then every run that waits is handed out again.

    Safe to call from many processes at once, and beside a running server.

    Args:
        backends: Say which systems.
        applied: Called with the names of what a system needed, as soon as it has it: a later one may fail.

    Raises:
        InvalidError: None of them is migrated by hand, or a setting is missing or wrong.
        IncompatibleStoreError: One is newer than this software.
        UnavailableError: One gives no answer, or refuses.
    """
    index = backends.clickhouse()
    if not backends.uses_postgres and index is None:
        raise InvalidError("profile", f"{backends.profile} needs no migrations by hand: the server applies them")
    if backends.uses_postgres:
        from sessions_adapters import postgres

        _report(applied, "Postgres", await postgres.migrate(backends.postgres()))
    if backends.dispatcher == PROCRASTINATE:
        from sessions_adapters import procrastinate

        _report(applied, "Procrastinate", await procrastinate.migrate(backends.procrastinate()))
    if backends.uses_postgres:
        await _hand_out_again(backends)
    if index is not None:
        from sessions_adapters import clickhouse

        _report(applied, "ClickHouse", await clickhouse.migrate(index))


async def _hand_out_again(backends: Backends) -> None:
    """Let the sweep hand out every run that waits, as what has them may be another dispatcher's queue, or one that is gone.

    For a run that is where it belongs that changes nothing.
    """
    from sessions_adapters import postgres

    async with postgres.open_database(backends.postgres()) as db:
        await postgres.PostgresBacklog(db).forget_dispatches()


def _report(applied: Callable[[str], object], system: str, names: Iterable[object]) -> None:
    for name in names:
        applied(f"{system} {name}")


def _chosen(profile: str | Backends, data: Path | None, url: str | None, encryption_key: str | None) -> Backends:
    if isinstance(profile, str):
        return Backends(profile=profile, data=data, database_url=url, encryption_key=encryption_key)
    if (data, url, encryption_key) != (None, None, None):
        raise InvalidError(
            "profile", "already says where data, database and key are: give it as a name, or nothing else"
        )
    return profile


async def _open_ports(
    stack: AsyncExitStack, backends: Backends, dispatcher: RunDispatcher, observer: Observer, clock: Clock | None
) -> Ports:
    ports = await open_store(stack, backends, dispatcher, observer, clock)
    return await open_systems(stack, backends, ports, clock)
