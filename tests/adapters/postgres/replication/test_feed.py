"""The change feed against a real server: what it gives, and from where on after an acknowledgement."""

from __future__ import annotations

import gc
import time
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs
import pytest

from contract.makers import ENV_B, initial, make_session
from harness.feeding import ids_of, insert, next_batch, next_change, take
from sessions_adapters.postgres import PostgresConfig, PostgresDatabase, PostgresSessionStore
from sessions_adapters.postgres.replication import PostgresChangeFeed, ReplicationConfig
from sessions_core.domain.ids import RunId
from sessions_core.domain.session import SessionUpdate
from sessions_core.errors import InvalidError, StoreInUseError
from sessions_core.ports.change_feed import ChangeKind

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.needs_postgres

CONFIRMED = "select confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name = $1"
PATIENCE_SECONDS = 10
AWKWARD = make_session(
    "awkward",
    environment=ENV_B,
    external_id='a"b\\c ü 🎉',
    type="tÿpe",
    tags=("plain", "with space", 'quo"te', "back\\slash", "NULL", "{}", ",", ""),
    metadata={"nested": [1, "two", None, {"x": 1.5}], "nul": "a b", "wide": "ü🎉"},
    expires_at=datetime(2030, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC),
    is_test=True,
    current_run_version=2**53 + 1,
    epoch=9,
)


async def confirmed(admin: Connection, options: ReplicationConfig) -> int:
    """Return from where on the server keeps its log."""
    return int(await admin.fetchval(CONFIRMED, options.slot))


async def test_a_session_comes_as_the_store_has_it_through_all_its_changes(
    feed: PostgresChangeFeed, db: PostgresDatabase, admin: Connection
) -> None:
    store = PostgresSessionStore(db)
    environment, session = AWKWARD.environment.id, AWKWARD.id
    async with feed.open() as stream:
        await store.create(AWKWARD, initial(AWKWARD))
        inserted = await next_change(stream)
        assert (inserted.kind, inserted.row.session) == (ChangeKind.INSERT, await store.find(environment, session))
        await store.update(environment, session, SessionUpdate(tags=(), metadata=None))
        updated = await next_change(stream)
        assert (updated.kind, updated.row.session) == (ChangeKind.UPDATE, await store.find(environment, session))
        assert (updated.row.session.tags, updated.row.session.metadata) == ((), None)
        await store.close(environment, session, "done ü")
        closed = await next_change(stream)
        assert closed.row.session == await store.find(environment, session)
        assert (closed.row.session.closed_reason, closed.row.is_deleted) == ("done ü", False)
        await admin.execute("delete from session")
        deleted = await next_change(stream)
        assert (deleted.kind, deleted.row.is_deleted, deleted.row.session) == (
            ChangeKind.DELETE,
            True,
            closed.row.session,
        )
        versions = [change.row.version for change in (inserted, updated, closed, deleted)]
        assert versions == sorted(set(versions))


async def test_every_column_comes_with_a_value_and_as_null(feed: PostgresChangeFeed, db: PostgresDatabase) -> None:
    store = PostgresSessionStore(db)
    moment = datetime(2026, 2, 3, 4, 5, 6, 7000, tzinfo=UTC)
    full = attrs.evolve(
        AWKWARD,
        current_run_id=RunId("run_1"),
        closed_at=moment,
        closed_reason="why",
        sealed_at=moment + timedelta(seconds=1),
    )
    empty = make_session("empty")
    async with feed.open() as stream:
        for session in (full, empty):
            await store.create(session, initial(session))
            assert (await next_change(stream)).row.session == await store.find(session.environment.id, session.id)


async def test_values_do_not_depend_on_the_forms_that_a_database_prefers(
    feed: PostgresChangeFeed, db: PostgresDatabase, admin: Connection
) -> None:
    database = await admin.fetchval("select current_database()")
    settings = {"timezone": "Asia/Kolkata", "datestyle": "German", "bytea_output": "escape"}
    for name, value in settings.items():
        await admin.execute(f"alter database {database} set {name} = '{value}'")
    try:
        async with feed.open() as stream:
            store = PostgresSessionStore(db)
            await store.create(AWKWARD, initial(AWKWARD))
            assert (await next_change(stream)).row.session == await store.find(AWKWARD.environment.id, AWKWARD.id)
    finally:
        await admin.execute(f"alter database {database} reset all")


async def test_a_version_is_where_the_commit_ends(feed: PostgresChangeFeed, admin: Connection) -> None:
    async with feed.open() as stream:
        before = await admin.fetchval("select pg_current_wal_insert_lsn() - '0/0'")
        await insert(admin, 1, 2)
        after = await admin.fetchval("select pg_current_wal_insert_lsn() - '0/0'")
        batch = await next_batch(stream)
        assert {change.row.version for change in batch.changes} == {batch.position}
        assert before < batch.position <= after
        assert abs(datetime.now(UTC) - batch.committed_at) < timedelta(minutes=1)


async def test_what_was_rolled_back_is_never_seen(feed: PostgresChangeFeed, admin: Connection) -> None:
    async with feed.open() as stream:
        transaction = admin.transaction()
        await transaction.start()
        await insert(admin, 1)
        await transaction.rollback()
        async with admin.transaction():
            await insert(admin, 2)
            await admin.execute("savepoint s")
            await insert(admin, 3)
            await admin.execute("rollback to savepoint s")
        assert ids_of([await next_batch(stream)]) == ["session_2"]


async def test_large_values_that_an_update_leaves_alone_come_along(feed: PostgresChangeFeed, admin: Connection) -> None:
    large = "select string_agg(md5(i::text), '') from generate_series(1, 2000) as i"
    async with feed.open() as stream:
        await insert(admin, 1)
        await next_batch(stream)
        await admin.execute(f"update session set metadata = json_build_object('large', ({large}))")
        await next_batch(stream)
        await admin.execute("update session set closed_reason = 'x'")
        change = await next_change(stream)
        session = change.row.session
        assert session.closed_reason == "x"
        assert session.metadata == {"large": await admin.fetchval(large)}
        assert 64_000 < change.size < 65_000
        await admin.execute("alter table session replica identity default; update session set closed_reason = 'y'")
        (unreadable,) = (await next_batch(stream)).unreadable
        assert (unreadable.session, "metadata" in unreadable.columns) == ("session_1", False)
        assert "REPLICA IDENTITY" in unreadable.reason
        await admin.execute("delete from session")
        (unreadable,) = (await next_batch(stream)).unreadable
        assert (unreadable.session, unreadable.kind) == ("session_1", ChangeKind.DELETE)


async def test_a_table_may_be_altered_while_it_is_streamed(feed: PostgresChangeFeed, admin: Connection) -> None:
    async with feed.open() as stream:
        try:
            await insert(admin, 1)
            await admin.execute("alter table session add extra int default 5")
            await insert(admin, 2)
            async with admin.transaction():
                await insert(admin, 3)
                await admin.execute("alter table session drop extra")
                await insert(admin, 4)
        finally:
            await admin.execute("alter table session drop column if exists extra")
        assert ids_of(await take(stream, 4)) == [f"session_{n}" for n in (1, 2, 3, 4)]


async def test_a_truncated_table_stops_nothing(
    feed: PostgresChangeFeed, admin: Connection, options: ReplicationConfig
) -> None:
    async with feed.open() as stream:
        await admin.execute(
            f"alter publication {options.publication} set (publish = 'insert, update, delete, truncate')"
        )
        await insert(admin, 1)
        await admin.execute("truncate session")
        await insert(admin, 2)
        assert ids_of(await take(stream, 2)) == ["session_1", "session_2"]


async def test_a_row_that_makes_no_session_stops_nothing(feed: PostgresChangeFeed, admin: Connection) -> None:
    async with feed.open() as stream:
        async with admin.transaction():
            await insert(admin, 1, 2)
            await admin.execute("update session set created_at = '-infinity', type = '' where id = 'session_1'")
        batch = await next_batch(stream)
        assert ids_of([batch]) == ["session_1", "session_2"]
        (unreadable,) = batch.unreadable
        assert (unreadable.session, unreadable.columns["created_at"]) == ("session_1", "-infinity")


async def test_a_new_stream_begins_after_what_was_acknowledged(feed: PostgresChangeFeed, admin: Connection) -> None:
    async with feed.open() as stream:
        for number in range(1, 6):
            await insert(admin, number)
        batches = await take(stream, 5)
        stream.acknowledge(batches[1].position)
    async with feed.open() as stream:
        again = await take(stream, 3)
        assert ids_of(again) == ["session_3", "session_4", "session_5"]
        assert again == batches[2:]
        stream.acknowledge(again[-1].position)
    async with feed.open() as stream:
        await insert(admin, 6)
        assert ids_of([await next_batch(stream)]) == ["session_6"]


async def test_what_happened_while_nobody_streamed_is_not_missed(feed: PostgresChangeFeed, admin: Connection) -> None:
    async with feed.open():
        pass
    await insert(admin, 1)
    async with feed.open() as stream:
        assert ids_of([await next_batch(stream)]) == ["session_1"]


async def test_an_unfinished_part_of_a_transaction_cannot_be_lost_by_acknowledging_it(
    config: PostgresConfig, options: ReplicationConfig, admin: Connection
) -> None:
    feed = PostgresChangeFeed(config, attrs.evolve(options, batch_size=2, held_bytes=500))
    async with feed.open() as stream:
        await insert(admin, 1)
        await insert(admin, 2, 6)
        batches = await take(stream, 3)
        assert ids_of(batches) == ["session_1", "session_2", "session_3"]
        stream.acknowledge(batches[-1].position)
    async with feed.open() as stream:
        assert ids_of(await take(stream, 5)) == [f"session_{n}" for n in range(2, 7)]


async def test_only_positions_that_were_handed_out_are_acknowledged(
    feed: PostgresChangeFeed, admin: Connection
) -> None:
    async with feed.open() as stream:
        await insert(admin, 1)
        batch = await next_batch(stream)
        with pytest.raises(InvalidError):
            stream.acknowledge(batch.position + 1)


async def test_the_server_hears_of_acknowledgements_while_the_stream_is_open(
    feed: PostgresChangeFeed, admin: Connection, options: ReplicationConfig
) -> None:
    async with feed.open() as stream:
        await insert(admin, 1)
        batch = await next_batch(stream)
        stream.acknowledge(batch.position)
        with anyio.fail_after(PATIENCE_SECONDS):
            while await confirmed(admin, options) < batch.position:
                await anyio.sleep(0.005)


async def test_the_log_is_let_go_although_only_other_tables_change(
    feed: PostgresChangeFeed, admin: Connection, options: ReplicationConfig
) -> None:
    async with feed.open() as stream, anyio.create_task_group() as tasks:
        tasks.start_soon(anext, stream)
        await admin.execute("insert into used_token select 'e', n::text, now() from generate_series(1, 1000) as n")
        written = await admin.fetchval("select pg_current_wal_flush_lsn() - '0/0'")
        with anyio.fail_after(PATIENCE_SECONDS):
            while await confirmed(admin, options) < written:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


async def test_the_log_is_kept_while_something_is_not_acknowledged(
    feed: PostgresChangeFeed, admin: Connection, options: ReplicationConfig
) -> None:
    async with feed.open() as stream, anyio.create_task_group() as tasks:
        await insert(admin, 1)
        batch = await next_batch(stream)
        tasks.start_soon(anext, stream)
        await admin.execute("insert into used_token select 'e', n::text, now() from generate_series(1, 1000) as n")
        sent = await admin.fetchval("select sent_lsn - '0/0' from pg_stat_replication")
        with anyio.fail_after(PATIENCE_SECONDS):
            while sent is None or sent <= batch.position:
                await anyio.sleep(0.01)
                sent = await admin.fetchval("select sent_lsn - '0/0' from pg_stat_replication")
        for _ in range(5):
            await anyio.sleep(options.status_interval.total_seconds())
            assert await confirmed(admin, options) < batch.position
        tasks.cancel_scope.cancel()


async def test_cancelling_a_wait_loses_nothing(feed: PostgresChangeFeed, admin: Connection) -> None:
    seen: list[str] = []
    async with feed.open() as stream, anyio.create_task_group() as tasks:

        async def write() -> None:
            for number in range(50):
                await insert(admin, number)

        tasks.start_soon(write)
        with anyio.fail_after(PATIENCE_SECONDS):
            while len(seen) < 50:
                with anyio.move_on_after(0.001):
                    while True:
                        seen += ids_of([await anext(stream)])
    assert seen == [f"session_{number}" for number in range(50)]


async def test_a_closed_stream_has_let_its_slot_go(
    feed: PostgresChangeFeed, admin: Connection, options: ReplicationConfig
) -> None:
    for number in range(10):
        async with feed.open() as stream:
            await insert(admin, number)
            stream.acknowledge((await next_batch(stream)).position)
        assert not await admin.fetchval("select active from pg_replication_slots where slot_name = $1", options.slot)


async def test_streams_leave_no_file_open_however_they_end(feed: PostgresChangeFeed, admin: Connection) -> None:
    async def open_and_fail(number: int) -> None:
        async with feed.open() as stream:
            await insert(admin, number)
            await next_batch(stream)
            if number % 3 == 0:
                raise ZeroDivisionError
            if number % 3 == 1:
                with anyio.move_on_after(0.01):
                    await anext(stream)

    async with feed.open():
        pass
    before = _count_open_files()
    for number in range(6):
        with suppress(ZeroDivisionError):
            await open_and_fail(number)
    gc.collect()
    assert _count_open_files() == before


async def test_opening_may_be_cancelled_at_any_moment(feed: PostgresChangeFeed, admin: Connection) -> None:
    async with feed.open():
        pass
    before = _count_open_files()
    for tenths in range(0, 200, 5):
        with anyio.move_on_after(tenths / 10_000), suppress(StoreInUseError):  # the server may still be clearing up
            async with feed.open() as stream:
                await anext(stream)
    with anyio.fail_after(PATIENCE_SECONDS):  # a name looked up in a thread ends when it ends
        while _count_open_files() > before:
            gc.collect()
            await anyio.sleep(0.01)
    await insert(admin, 1)
    with anyio.fail_after(PATIENCE_SECONDS):
        while not await _has_changes(feed):
            await anyio.sleep(0.005)


async def _has_changes(feed: PostgresChangeFeed) -> bool:
    with suppress(StoreInUseError):
        async with feed.open() as stream:
            return bool((await next_batch(stream)).changes)
    return False


def _count_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_nothing_is_read_while_nobody_asks(
    feed: PostgresChangeFeed, admin: Connection, options: ReplicationConfig
) -> None:
    async with feed.open() as stream:
        await insert(admin, 0)
        await next_batch(stream)
        waiting = len(stream._frames)
        for number in range(1, 101):
            await insert(admin, number)
        await anyio.sleep(5 * options.status_interval.total_seconds())
        assert len(stream._frames) == waiting
        assert len(await take(stream, 100)) == 100


@pytest.mark.slow
async def test_a_large_transaction_takes_little_memory(
    config: PostgresConfig, options: ReplicationConfig, admin: Connection
) -> None:
    feed = PostgresChangeFeed(config, attrs.evolve(options, held_bytes=100_000))
    count, seen = 20_000, 0
    async with feed.open() as stream:
        await insert(admin, 1, count)
        tracemalloc.start()
        try:
            while seen < count:
                seen += len((await next_batch(stream)).changes)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 5_000_000, "two batches of a thousand changes take 3 MB, all messages of the transaction 8 MB"


@pytest.mark.slow
async def test_how_fast_changes_come(
    feed: PostgresChangeFeed, admin: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    count, each = 100_000, 1_000
    async with feed.open() as stream:
        for first in range(0, count, each):
            await insert(admin, first, first + each - 1)
        began, processor, seen = time.perf_counter(), time.process_time(), 0
        while seen < count:
            batch = await next_batch(stream)
            seen += len(batch.changes)
            stream.acknowledge(batch.position)
        wall, processor = time.perf_counter() - began, time.process_time() - processor
    with capsys.disabled():
        print(f"\n{count} changes: {count / wall:,.0f}/s, {processor / count * 1e6:.0f} µs of our processor each")
