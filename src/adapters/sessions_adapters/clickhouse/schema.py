"""Migrations: numbered SQL files. ClickHouse has no transactions, so every statement in them may be carried out twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from typing import Final

import anyio.to_thread
import attrs
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error

from sessions_adapters.clickhouse.config import ClickHouseConfig
from sessions_adapters.clickhouse.database import FAILURES, ClickHouseDatabase, connect
from sessions_core.errors import IncompatibleStoreError, IndexUnavailableError

CREATE_DATABASE: Final = "CREATE DATABASE IF NOT EXISTS {database:Identifier}"
CREATE_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS sessions_migration (number UInt32, applied_at DateTime('UTC') DEFAULT now())
    ENGINE = ReplacingMergeTree ORDER BY number
"""
LAST_APPLIED: Final = "SELECT max(number) FROM sessions_migration"
REMEMBER: Final = "INSERT INTO sessions_migration (number) SELECT {number:UInt32}"
NOT_THERE: Final = ("UNKNOWN_DATABASE", "UNKNOWN_TABLE")


@attrs.frozen
class Migration:
    """One step of the schema."""

    number: int
    statements: tuple[str, ...]


def list_migrations() -> list[Migration]:
    """Return the migrations of this version of the software, in order."""
    return sorted(_load(), key=lambda migration: migration.number)


def _load() -> Iterator[Migration]:
    for file in (files(__package__ or __name__) / "migrations").iterdir():
        number, _, _ = file.name.partition("_")
        if number.isdigit() and file.name.endswith(".sql"):
            script = file.read_text(encoding="utf-8")
            yield Migration(int(number), tuple(part.strip() for part in script.split(";\n") if part.strip()))


async def migrate(config: ClickHouseConfig) -> list[int]:
    """Make the database and apply the migrations it lacks; return their numbers. Any number of processes may do so at once.

    Raises:
        IndexUnavailableError: ClickHouse gave no answer.
        IncompatibleStoreError: The database is newer than this software.
    """
    try:
        return await anyio.to_thread.run_sync(_migrate, config)
    except FAILURES as exc:
        raise IndexUnavailableError from exc


def _migrate(config: ClickHouseConfig) -> list[int]:
    with closing(connect(config, None)) as client:
        client.command(CREATE_DATABASE, parameters={"database": config.database})
    with closing(connect(config, config.database)) as client:
        client.command(CREATE_TABLE)
        pending = _pending(_last_applied(client))
        for migration in pending:
            _apply(client, migration)
        return [migration.number for migration in pending]


def _apply(client: Client, migration: Migration) -> None:
    for statement in migration.statements:
        client.command(statement)
    client.command(REMEMBER, parameters={"number": migration.number})


async def check_schema(database: ClickHouseDatabase) -> None:
    """Find out whether the tables are there as this software needs them.

    Raises:
        IndexUnavailableError: ClickHouse gave no answer.
        IncompatibleStoreError: They are older or newer; says what to do.
    """
    try:
        pending = _pending(await database.run(_last_applied))
    except IndexUnavailableError as error:
        if isinstance(error.__cause__, Error) and error.__cause__.name in NOT_THERE:
            raise IncompatibleStoreError("ClickHouse has no tables of sessions yet; run `sessions migrate`") from error
        raise
    if pending:
        raise IncompatibleStoreError(
            f"ClickHouse lacks migration {pending[0].number} of the table of sessions; run `sessions migrate`"
        )


def _last_applied(client: Client) -> int:
    number: int = client.query(LAST_APPLIED).result_rows[0][0]
    return number


def _pending(applied: int) -> list[Migration]:
    known = list_migrations()
    if applied > known[-1].number:
        raise IncompatibleStoreError(
            f"ClickHouse has schema version {applied} of sessions, but this software knows versions up to "
            f"{known[-1].number}; install a newer release"
        )
    return [migration for migration in known if migration.number > applied]
