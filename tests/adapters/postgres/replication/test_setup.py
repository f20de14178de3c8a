"""Publication, slot and table: made where they are missing, and clear words where they are wrong."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import anyio
import attrs
import pytest

from harness.feeding import ids_of, insert, next_batch
from sessions_adapters.postgres import PostgresConfig, PostgresDatabase, migrate
from sessions_adapters.postgres.replication import PostgresChangeFeed, PostgresFeedGauge, ReplicationConfig, setup
from sessions_core.errors import IncompatibleStoreError, InvalidError, StoreInUseError

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.needs_postgres

FOUND = """
    select relreplident::text, pubinsert and pubupdate and pubdelete and not pubtruncate as actions, plugin, slot_type
    from pg_class, pg_publication, pg_replication_slots
    where pg_class.oid = 'session'::regclass and pubname = $1 and slot_name = $2
"""


async def refusal(feed: PostgresChangeFeed) -> str:
    """Return what a start that must fail says."""
    with pytest.raises(IncompatibleStoreError) as caught:
        async with feed.open():
            pass
    assert not isinstance(caught.value, StoreInUseError)
    return str(caught.value)


def fix_in(message: str) -> str:
    """Return the SQL that is in a message."""
    found = re.search("(ALTER|CREATE|SELECT) .*;", message)
    assert found is not None, message
    return found[0]


async def starts(feed: PostgresChangeFeed, admin: Connection) -> bool:
    """Tell whether the feed works now."""
    async with feed.open() as stream:
        await insert(admin, 1)
        return ids_of([await next_batch(stream)]) == ["session_1"]


@asynccontextmanager
async def role(admin: Connection, config: PostgresConfig, rights: str) -> AsyncIterator[PostgresConfig]:
    """Give a config for a role that may read and write the schema, and have *rights*."""
    name = f"weak_{urlsplit(config.url).path[1:]}"
    await admin.execute(f"create role {name} login {rights}; grant usage on schema sessions to {name}")
    await admin.execute(f"grant all on all tables in schema sessions to {name}")
    parts = urlsplit(config.url)
    try:
        yield attrs.evolve(config, url=urlunsplit(parts._replace(netloc=f"{name}@")))
    finally:
        await admin.execute(f"drop owned by {name}; drop role {name}")


def test_names_are_the_contracts() -> None:
    options = ReplicationConfig()
    assert (options.slot, options.publication) == ("sessions_to_clickhouse_v1", "sessions_to_clickhouse_v1_publication")


@pytest.mark.parametrize("name", ["", "Upper", "a-b", "a'b", 'a"b', "ü", "x" * 64, "1a"])
def test_names_that_would_need_quotes_are_refused(name: str) -> None:
    with pytest.raises(InvalidError, match="slot"):
        ReplicationConfig(slot=name)
    with pytest.raises(InvalidError, match="publication"):
        ReplicationConfig(publication=name)


async def test_what_is_missing_is_made(feed: PostgresChangeFeed, options: ReplicationConfig, admin: Connection) -> None:
    for _ in range(2):
        async with feed.open():
            found = await admin.fetchrow(FOUND, options.publication, options.slot)
            assert found is not None
            assert tuple(found) == ("f", True, "pgoutput", "logical")


async def test_a_publication_for_everything_will_do(
    feed: PostgresChangeFeed, options: ReplicationConfig, admin: Connection
) -> None:
    await admin.execute(f"create publication {options.publication} for all tables")
    assert await starts(feed, admin)


@pytest.mark.parametrize(
    ("publication", "problem"),
    [
        (
            "for table sessions.session with (publish = 'insert, update')",
            "does not publish all of insert, update, delete",
        ),
        ("for table sessions.run", "does not have the table of sessions"),
        ("for table sessions.session where (is_test)", "has only some rows or columns"),
        ("for table sessions.session (id, type)", "has only some rows or columns"),
        ("", "does not have the table of sessions"),
    ],
    ids=["actions", "another table", "some rows", "some columns", "no table"],
)
async def test_a_publication_that_is_wrong_is_refused_with_sql_that_mends_it(
    feed: PostgresChangeFeed, options: ReplicationConfig, admin: Connection, publication: str, problem: str
) -> None:
    await admin.execute(f"create publication {options.publication} {publication}")
    message = await refusal(feed)
    assert f"The publication '{options.publication}' {problem}" in message
    await admin.execute(fix_in(message))
    assert await starts(feed, admin)


async def test_a_slot_that_is_wrong_is_refused_with_sql_that_mends_it(
    feed: PostgresChangeFeed, options: ReplicationConfig, admin: Connection
) -> None:
    await admin.execute("select pg_create_physical_replication_slot($1)", options.slot)
    message = await refusal(feed)
    assert "is physical with plugin none" in message
    assert "backfill" in message
    await admin.execute(fix_in(message))
    assert await starts(feed, admin)


async def test_a_slot_of_another_database_is_refused(
    feed: PostgresChangeFeed, config: PostgresConfig, options: ReplicationConfig, bare_url: str
) -> None:
    other = attrs.evolve(config, url=bare_url)
    await migrate(other)
    async with feed.open():
        pass
    assert "belongs to the database" in await refusal(PostgresChangeFeed(other, options))


async def test_a_database_without_our_table_is_refused(
    config: PostgresConfig, options: ReplicationConfig, bare_url: str
) -> None:
    message = await refusal(PostgresChangeFeed(attrs.evolve(config, url=bare_url), options))
    assert 'no table "sessions"."session"; run `sessions migrate` first' in message


async def test_a_slot_that_is_in_use_is_said_to_be(
    feed: PostgresChangeFeed, options: ReplicationConfig, admin: Connection
) -> None:
    async with feed.open() as stream:
        with pytest.raises(StoreInUseError, match="active_pid") as caught:
            async with feed.open():
                pass
        query = str(caught.value)
        assert await admin.fetchval(query[query.index("SELECT") :]) > 0
        await insert(admin, 1)
        assert ids_of([await next_batch(stream)]) == ["session_1"], "the first one goes on"
    async with feed.open():
        pass


async def test_a_publication_is_not_made_behind_its_slot_as_changes_would_be_left_out_silently(
    feed: PostgresChangeFeed, options: ReplicationConfig, admin: Connection
) -> None:
    async with feed.open():
        pass
    await admin.execute(f"drop publication {options.publication}")
    message = await refusal(feed)
    assert "backfill" in message
    await admin.execute(fix_in(message))
    assert await starts(feed, admin)


async def test_a_publication_that_was_mended_behind_its_slot_asks_for_a_backfill(
    feed: PostgresChangeFeed, options: ReplicationConfig, admin: Connection
) -> None:
    async with feed.open():
        pass
    await admin.execute(f"alter publication {options.publication} set (publish = 'insert')")
    assert "backfill" in await refusal(feed)


async def test_a_role_that_may_not_is_told_what_somebody_else_has_to_do(
    config: PostgresConfig, options: ReplicationConfig, admin: Connection
) -> None:
    async with role(admin, config, "noreplication") as weak:
        feed = PostgresChangeFeed(weak, options)
        for wanted in (
            "REPLICA IDENTITY FULL",
            "CREATE PUBLICATION",
            "pg_create_logical_replication_slot",
            "ALTER ROLE",
        ):
            message = await refusal(feed)
            assert wanted in message
            await admin.execute(fix_in(message))
        assert await starts(feed, admin)


async def test_a_url_that_only_the_other_driver_knows_is_refused(
    config: PostgresConfig, options: ReplicationConfig
) -> None:
    feed = PostgresChangeFeed(attrs.evolve(config, url=f"{config.url}&jit=off"), options)
    with pytest.raises(InvalidError, match="libpq"):
        async with feed.open():
            pass


async def test_a_new_slot_waits_for_whoever_is_writing_anything_however_long_that_takes(
    feed: PostgresChangeFeed, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "SET_LOCK_TIMEOUT", "set lock_timeout = '20ms'")
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("create table of_somebody_else (number int)")
    async with anyio.create_task_group() as tasks:

        async def commit_late() -> None:
            await anyio.sleep(0.3)
            await transaction.commit()

        tasks.start_soon(commit_late)
        async with feed.open():
            pass


async def test_a_new_slot_beside_older_sessions_asks_for_a_backfill(
    feed: PostgresChangeFeed, options: ReplicationConfig, admin: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """There may have been one before, which went with a server that has failed: what changed since then is streamed by nobody."""
    with caplog.at_level(logging.WARNING, "sessions.postgres"):
        async with feed.open():
            await insert(admin, 1)
        assert caplog.records == []
        await admin.execute("select pg_drop_replication_slot($1)", options.slot)
        for _ in range(2):
            async with feed.open():
                pass
    [record] = caplog.records
    assert "backfill" in record.getMessage()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("alter publication {0} drop table sessions.session", "does not have the table of sessions"),
        ("alter publication {0} set (publish = 'insert')", "does not publish all of insert, update, delete"),
        ("alter publication {0} set table sessions.session where (is_test)", "has only some rows or columns"),
        ("drop publication {0}", "is missing, although its replication slot is there"),
        ("alter table session replica identity default", "does not send old rows whole"),
    ],
    ids=["table", "actions", "rows", "publication", "identity"],
)
async def test_what_is_altered_under_a_stream_is_found_and_told_with_sql_that_mends_it(
    feed: PostgresChangeFeed,
    db: PostgresDatabase,
    options: ReplicationConfig,
    admin: Connection,
    change: str,
    words: str,
) -> None:
    gauge = PostgresFeedGauge(db, options)
    assert await gauge.measure() is None
    async with feed.open():
        measure = await gauge.measure()
        assert measure is not None
        assert (measure.problem, measure.lag_bytes <= measure.retained_bytes) == (None, True)
        await admin.execute(change.format(options.publication))
        measure = await gauge.measure()
        assert measure is not None
        assert words in str(measure.problem)
        await admin.execute(fix_in(str(measure.problem)))
        measure = await gauge.measure()
        assert measure is not None
        assert measure.problem is None
