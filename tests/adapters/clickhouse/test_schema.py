"""Migrations: applied once, by any number of processes at once, and missed when they are missing."""

from __future__ import annotations

import anyio
import pytest

from sessions_adapters.clickhouse import ClickHouseConfig, ClickHouseDatabase, check_schema, migrate, open_database
from sessions_adapters.clickhouse.schema import list_migrations
from sessions_core.errors import IncompatibleStoreError, InvalidError

pytestmark = pytest.mark.needs_clickhouse

NUMBERS = [migration.number for migration in list_migrations()]


@pytest.mark.parametrize("url", ["localhost:8123", "user:secret@host", "tcp://user:secret@host", ""])
def test_an_address_of_another_kind_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InvalidError, match="must begin with") as caught:
        ClickHouseConfig(url=url)
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(ClickHouseConfig(url="http://user:secret@host"))


def test_migrations_are_numbered_without_a_gap() -> None:
    assert list(range(1, len(NUMBERS) + 1)) == NUMBERS


async def test_migrations_are_applied_once(config: ClickHouseConfig) -> None:
    assert await migrate(config) == NUMBERS
    assert await migrate(config) == []


async def test_many_may_migrate_at_once(config: ClickHouseConfig) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(migrate, config)
    async with open_database(config) as database:
        await check_schema(database)


async def test_a_database_that_is_missing_is_told_with_its_remedy(config: ClickHouseConfig) -> None:
    async with open_database(config) as database:
        with pytest.raises(IncompatibleStoreError, match="run `sessions migrate`"):
            await check_schema(database)


async def test_a_migration_that_is_missing_is_told_with_its_remedy(database: ClickHouseDatabase) -> None:
    await check_schema(database)
    last = NUMBERS[-1]
    await database.run(
        lambda client: client.command(
            f"ALTER TABLE sessions_migration DELETE WHERE number = {last}", settings={"mutations_sync": 2}
        )
    )
    with pytest.raises(IncompatibleStoreError, match=f"migration {last}.*`sessions migrate`"):
        await check_schema(database)


async def test_a_newer_database_is_refused(config: ClickHouseConfig, database: ClickHouseDatabase) -> None:
    await database.run(lambda client: client.command("INSERT INTO sessions_migration (number) VALUES (99)"))
    with pytest.raises(IncompatibleStoreError, match=r"version 99.*install a newer release"):
        await check_schema(database)
    with pytest.raises(IncompatibleStoreError, match="version 99"):
        await migrate(config)


async def test_the_table_skips_by_tags_and_is_ordered_as_the_contract_says(
    config: ClickHouseConfig, database: ClickHouseDatabase
) -> None:
    [(key, partition, engine)] = await database.query(
        "SELECT sorting_key, partition_key, engine_full FROM system.tables"
        " WHERE database = {database:String} AND name = 'sessions_v1'",
        {"database": config.database},
    )
    assert key == "organization_id, project_id, environment_id, created_at, session_id"
    assert partition == "toYYYYMM(created_at)"
    assert engine.startswith("ReplacingMergeTree(_version, _is_deleted)")
    found = await database.query(
        "SELECT expr FROM system.data_skipping_indices WHERE database = {database:String} ORDER BY expr",
        {"database": config.database},
    )
    assert found == [("external_id",), ("tags",)]
