"""Migrations: by many processes at once, over older and newer databases, and what a start says about them."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from sessions_adapters.postgres import PostgresConfig, PostgresSessionStore, migrate, open_database, schema
from sessions_core.errors import IncompatibleStoreError, StoreUnavailableError

pytestmark = pytest.mark.needs_postgres

ALL = [f"{step.part}/{step.name}" for step in schema.list_migrations(PostgresConfig(url="postgresql://"))]


async def run(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def test_a_bare_database_gets_every_migration_once(bare_url: str) -> None:
    config = PostgresConfig(url=bare_url)
    assert await migrate(config) == ALL
    assert await migrate(config) == []
    async with open_database(config) as db:
        await PostgresSessionStore(db).check()


async def test_of_many_migrators_at_once_one_does_the_work(bare_url: str) -> None:
    applied = await asyncio.gather(*(migrate(PostgresConfig(url=bare_url)) for _ in range(12)))
    assert sorted(applied, reverse=True) == [ALL, *[[]] * 11]


@pytest.mark.parametrize(
    "missing", ["drop schema sessions cascade", "delete from sessions.schema_version where number > 1"]
)
async def test_a_database_that_is_not_up_to_date_is_refused_with_the_command_to_run(
    bare_url: str, missing: str
) -> None:
    config = PostgresConfig(url=bare_url)
    await migrate(config)
    await run(bare_url, missing)
    with pytest.raises(IncompatibleStoreError, match="run `sessions migrate` first"):
        async with open_database(config):
            pass


async def test_a_newer_database_is_refused_and_left_alone(bare_url: str) -> None:
    config = PostgresConfig(url=bare_url)
    await migrate(config)
    await run(bare_url, "insert into sessions.schema_version (part, number) values ('core', 999)")
    with pytest.raises(IncompatibleStoreError, match="has version 999 of core"):
        async with open_database(config):
            pass
    with pytest.raises(IncompatibleStoreError, match="has version 999 of core"):
        await migrate(config)


async def test_a_migration_that_fails_leaves_everything_as_it_was_before_it(bare_url: str) -> None:
    config = PostgresConfig(url=bare_url)
    await run(bare_url, "create schema sessions; create table sessions.record (something int)")
    with pytest.raises(StoreUnavailableError):
        await migrate(config)
    await run(bare_url, "drop table sessions.record")
    assert await migrate(config) == ALL[1:], "the first one had been applied"


async def test_lists_can_be_added_later(bare_url: str) -> None:
    config = PostgresConfig(url=bare_url, lists=False)
    assert await migrate(config) == [name for name in ALL if name.startswith("core/")]
    async with open_database(config):
        pass
    with pytest.raises(IncompatibleStoreError):
        async with open_database(PostgresConfig(url=bare_url)):
            pass
    assert await migrate(PostgresConfig(url=bare_url)) == [name for name in ALL if name.startswith("lists/")]


async def test_schemas_of_one_database_are_apart(bare_url: str) -> None:
    for name in ("one", "two"):
        assert await migrate(PostgresConfig(url=bare_url, schema=name)) == ALL
    async with open_database(PostgresConfig(url=bare_url, schema="one")):
        pass
    with pytest.raises(IncompatibleStoreError):
        async with open_database(PostgresConfig(url=bare_url)):
            pass


async def test_a_server_that_is_not_there_is_an_error_without_the_drivers_words() -> None:
    config = PostgresConfig(url="postgresql://user:secret@/none?host=/nowhere")
    with pytest.raises(StoreUnavailableError) as caught:
        async with open_database(config):
            pass
    assert "secret" not in f"{caught.value} {config}"
    assert "nowhere" not in str(caught.value)
    with pytest.raises(StoreUnavailableError):
        await migrate(config)
