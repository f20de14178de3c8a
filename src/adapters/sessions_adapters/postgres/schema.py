"""Migrations: numbered SQL files, each applied once, in a transaction with the number it leaves behind.

The schema has two parts with numbers of their own: ``core``, and ``lists``, which is needed only where lists of sessions
are read from Postgres.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Final

import asyncpg
import attrs

from sessions_adapters.postgres.config import PostgresConfig
from sessions_adapters.postgres.connecting import Connection, connect
from sessions_adapters.postgres.failures import translated
from sessions_core.errors import IncompatibleStoreError, StoreUnavailableError

CORE: Final = "core"
LISTS: Final = "lists"
COMMAND: Final = "sessions migrate"

LOCK: Final = "select pg_advisory_lock(hashtextextended('sessions migrate ' || $1, 0))"
UNLOCK: Final = "select pg_advisory_unlock(hashtextextended('sessions migrate ' || $1, 0))"
HAS_SCHEMA: Final = "select exists (select from pg_namespace where nspname = $1)"
IS_BARRED: Final = """
    select coalesce((select not has_schema_privilege(oid, 'usage') from pg_namespace where nspname = $1), false)
"""
CREATE_VERSIONS: Final = """
    create table if not exists schema_version (
        part text not null, number int not null, applied_at timestamptz not null default now(), primary key (part, number)
    )
"""
VERSIONS: Final = "select part, max(number) as number from schema_version group by part"
INSERT_VERSION: Final = "insert into schema_version (part, number) values ($1, $2)"


@attrs.frozen
class Migration:
    """One step of one part of the schema."""

    part: str
    number: int
    name: str
    script: str


def list_migrations(config: PostgresConfig) -> list[Migration]:
    """Return the migrations of this version of the software that *config* needs, in order."""
    parts = (CORE, LISTS) if config.lists else (CORE,)
    return [migration for part in parts for migration in sorted(_load(part), key=lambda found: found.number)]


def _load(part: str) -> Iterator[Migration]:
    for file in (files(__package__ or __name__) / "migrations" / part).iterdir():
        number, _, _ = file.name.partition("_")
        if number.isdigit() and file.name.endswith(".sql"):
            yield Migration(part, int(number), file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))


async def migrate(config: PostgresConfig) -> list[str]:
    """Bring the database up to date; return the names of the migrations that were applied.

    Of any number of processes that do this at once, one works while the others wait. A migration that fails leaves
    everything as it was before it.

    Raises:
        IncompatibleStoreError: The database is newer than this software.
        StoreUnavailableError: It cannot be reached or changed.
    """
    with translated(StoreUnavailableError):
        async with connect(config, patient=True) as connection:
            await connection.execute(LOCK, config.schema)
            try:
                return await _migrate(connection, config)
            finally:
                await connection.execute(UNLOCK, config.schema)


async def check(connection: Connection, config: PostgresConfig) -> None:
    """Find out whether the database is up to date.

    Raises:
        IncompatibleStoreError: It is older or newer than this software; says what to do.
    """
    if await connection.fetchval(IS_BARRED, config.schema):
        raise IncompatibleStoreError(
            f"The database's schema {config.schema!r} is there, but this role may not use it; grant it usage, and its tables"
        )
    if find_pending(await _versions(connection), config):
        raise IncompatibleStoreError(
            f"The database's schema {config.schema!r} is missing or older than this software; run `{COMMAND}` first"
        )


def find_pending(stored: Mapping[str, int], config: PostgresConfig) -> list[Migration]:
    """Return the migrations that are missing in a database with the *stored* numbers.

    Raises:
        IncompatibleStoreError: It is newer than this software.
    """
    known = list_migrations(config)
    newest = {migration.part: migration.number for migration in known}
    for part, number in newest.items():
        if stored.get(part, 0) > number:
            raise IncompatibleStoreError(
                f"The database's schema {config.schema!r} has version {stored[part]} of {part}, but this software knows "
                f"versions up to {number}; install a newer release, or restore a backup from before the upgrade"
            )
    return [migration for migration in known if migration.number > stored.get(migration.part, 0)]


async def _versions(connection: Connection) -> dict[str, int]:
    try:
        return {row["part"]: row["number"] for row in await connection.fetch(VERSIONS)}
    except asyncpg.UndefinedTableError:
        return {}


async def _migrate(connection: Connection, config: PostgresConfig) -> list[str]:
    if not await connection.fetchval(HAS_SCHEMA, config.schema):
        await connection.execute(f'create schema "{config.schema}"')
    await connection.execute(CREATE_VERSIONS)
    pending = find_pending(await _versions(connection), config)
    for migration in pending:
        async with connection.transaction():
            await connection.execute(migration.script)
            await connection.execute(INSERT_VERSION, migration.part, migration.number)
    return [f"{migration.part}/{migration.name}" for migration in pending]
