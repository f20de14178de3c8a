"""Procrastinate's schema, with a table of ours beside it: which runs each worker takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, LiteralString

import anyio
import psycopg
from procrastinate.schema import SchemaManager
from psycopg.sql import SQL, Identifier

from sessions_adapters.procrastinate.config import ProcrastinateConfig
from sessions_adapters.procrastinate.connecting import connect
from sessions_adapters.procrastinate.failures import translated

Connection = psycopg.AsyncConnection[Any]

COMMAND: Final = "sessions migrate"
LOCK: Final = "select pg_advisory_xact_lock(hashtextextended('sessions migrate ' || %s, 0))"
HAS_SCHEMA: Final = "select exists (select from pg_namespace where nspname = %s)"
INSTALLED: Final = "select max(migration) from sessions_migration"
HAS_MIGRATIONS: Final = "select to_regclass('sessions_migration') is not null"
NOTE: Final = "insert into sessions_migration (migration) values (%s)"
OURS: Final = """
    create table sessions_migration (
        migration text collate "C" not null primary key, applied_at timestamptz not null default now()
    );
    create table sessions_worker (
        worker_id bigint primary key references procrastinate_workers (id) on delete cascade,
        rank text collate "C" not null, tasks text[], queues text[]
    );
"""


async def migrate(config: ProcrastinateConfig) -> list[str]:
    """Bring the schema up to date; return the names of the steps that were taken.

    Of any number of processes that do this at once, one works while the others wait. All steps are one transaction.

    Raises:
        DispatcherUnavailableError: It cannot be reached or changed.
    """
    with translated():
        async with await connect(config) as connection, connection.transaction():
            await connection.execute(LOCK, (config.schema,))
            if not await _value(connection, HAS_SCHEMA, config.schema):
                await connection.execute(SQL("create schema {}").format(Identifier(config.schema)))
            installed = await _installed(connection)
            if installed is None:
                return [await _install(connection)]
            return [await _apply(connection, step) for step in _steps() if step.stem > installed]


async def find_problem(config: ProcrastinateConfig) -> str | None:
    """Return what is wrong with the schema, and what to do; None if it fits.

    Raises:
        DispatcherUnavailableError: It gives no answer.
    """
    with translated():
        async with await connect(config) as connection:
            installed = await _installed(connection)
    newest = _steps()[-1].stem
    if installed == newest:
        return None
    if installed is not None and installed > newest:
        return f"The schema {config.schema!r} is newer than this software; install a newer release"
    return f"The schema {config.schema!r} is missing or older than this software; run `{COMMAND}` first"


def _steps() -> list[Path]:
    """Return Procrastinate's own migrations, which say in their names by which of its versions they are needed."""
    return sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))


async def _install(connection: Connection) -> str:
    newest = _steps()[-1].stem
    await connection.execute(SQL(SchemaManager.get_schema()))
    await connection.execute(SQL(OURS))
    await connection.execute(NOTE, (newest,))
    return f"schema of {newest}"


async def _apply(connection: Connection, step: Path) -> str:
    await connection.execute(await anyio.Path(step).read_bytes())
    await connection.execute(NOTE, (step.stem,))
    return step.stem


async def _installed(connection: Connection) -> str | None:
    if not await _value(connection, HAS_MIGRATIONS):
        return None
    installed: str | None = await _value(connection, INSTALLED)
    return installed


async def _value(connection: Connection, statement: LiteralString, *values: Any) -> Any:
    row = await (await connection.execute(SQL(statement), values)).fetchone()
    return None if row is None else row[0]
