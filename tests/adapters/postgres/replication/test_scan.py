"""Reading all sessions beside the change feed: what is found, with which versions, and what that waits for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio
import asyncpg
import attrs
import pytest

from harness.feeding import insert, next_change
from sessions_adapters.postgres import PostgresDatabase
from sessions_adapters.postgres.replication import PostgresChangeFeed, PostgresSessionScan, ReplicationConfig
from sessions_core.domain.ids import SessionId
from sessions_core.errors import IncompatibleStoreError
from sessions_core.ports.session_scan import ScanChunk

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.needs_postgres

PATIENCE_SECONDS = 10
BLOCKED = "select count(*) from pg_stat_activity where query like '%pg_locks%' and pid <> pg_backend_pid()"


@pytest.fixture
def scan(db: PostgresDatabase, options: ReplicationConfig) -> PostgresSessionScan:
    return PostgresSessionScan(db, options)


@pytest.fixture
async def other(url: str) -> AsyncIterator[Connection]:
    """A connection whose transactions take their time."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "sessions"})
    yield connection
    await connection.close()


async def read_all(scan: PostgresSessionScan, limit: int) -> list[ScanChunk]:
    chunks = [await scan.read(None, limit)]
    while chunks[-1].last is not None:
        chunks.append(await scan.read(chunks[-1].last, limit))
    return chunks[:-1]


def ids_of(chunks: list[ScanChunk]) -> list[str]:
    return [row.session.id for chunk in chunks for row in chunk.rows]


async def test_all_sessions_are_found_once_in_the_order_of_their_ids(
    scan: PostgresSessionScan, admin: Connection
) -> None:
    assert await read_all(scan, 3) == []
    await insert(admin, 1, 10)
    chunks = await read_all(scan, 3)
    assert ids_of(chunks) == sorted(f"session_{number}" for number in range(1, 11))
    assert [len(chunk.rows) for chunk in chunks] == [3, 3, 3, 1]


async def test_whatever_changes_after_a_chunk_was_read_has_a_larger_version(
    scan: PostgresSessionScan, feed: PostgresChangeFeed, admin: Connection
) -> None:
    await insert(admin, 1, 2)
    async with feed.open() as stream:
        chunk = await scan.read(None, 10)
        await admin.execute("update session set tags = array['new'] where id = 'session_1'")
        await admin.execute("delete from session where id = 'session_2'")
        changes = [await next_change(stream), await next_change(stream)]
    read = {row.session.id: row.version for row in chunk.rows}
    assert all(change.row.version > read[change.row.session.id] for change in changes)


async def test_what_changed_before_a_chunk_has_no_larger_version_than_the_same_state_in_it(
    scan: PostgresSessionScan, feed: PostgresChangeFeed, admin: Connection
) -> None:
    async with feed.open() as stream:
        await insert(admin, 1)
        change = await next_change(stream)
        (row,) = (await scan.read(None, 10)).rows
    assert change.row.version <= row.version
    assert change.row.session == row.session


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_a_chunk_waits_for_those_who_are_writing_sessions(
    scan: PostgresSessionScan, admin: Connection, other: Connection, ending: str
) -> None:
    await insert(admin, 1)
    await other.execute("begin; update session set tags = array['new']")
    chunks: list[ScanChunk] = []

    async def read() -> None:
        chunks.append(await scan.read(None, 10))

    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            while not await admin.fetchval(BLOCKED):
                await anyio.sleep(0.005)
            await insert(admin, 2)  # those who begin later are not waited for
            assert chunks == []
            await other.execute(ending)
    tags = {row.session.id: row.session.tags for row in chunks[0].rows}
    assert tags[SessionId("session_1")] == (("new",) if ending == "commit" else ("a", "b"))


async def test_a_chunk_waits_for_nobody_who_writes_something_else(
    scan: PostgresSessionScan, admin: Connection, other: Connection
) -> None:
    await insert(admin, 1)
    await other.execute("begin; create table something_else (id int); select * from session for update")
    with anyio.fail_after(PATIENCE_SECONDS):
        assert len((await scan.read(None, 10)).rows) == 1
    await other.execute("rollback")


async def test_large_sessions_make_small_chunks(scan: PostgresSessionScan, admin: Connection) -> None:
    await insert(admin, 1, 6)
    await admin.execute(
        "update session set metadata = json_build_object('x', repeat('x', 3000000)) where id > 'session_2'"
    )
    chunks = await read_all(scan, 100)
    assert [len(chunk.rows) for chunk in chunks] == [5, 1]
    assert len(set(ids_of(chunks))) == 6


async def test_a_session_that_cannot_be_read_is_told_and_stops_nobody(
    scan: PostgresSessionScan, admin: Connection
) -> None:
    await insert(admin, 1, 3)
    await admin.execute("update session set environment_type = 'NOWHERE' where id = 'session_2'")
    chunk = await scan.read(None, 10)
    assert ids_of([chunk]) == ["session_1", "session_3"]
    (unreadable,) = chunk.unreadable
    assert (unreadable.session, unreadable.columns["environment_type"]) == ("session_2", "NOWHERE")
    assert "NOWHERE" in unreadable.reason
    assert unreadable.version == chunk.rows[0].version


async def test_progress_is_kept_until_the_end(scan: PostgresSessionScan, db: PostgresDatabase) -> None:
    assert await scan.find_progress() is None
    progress = await scan.begin()
    assert (progress.after, progress.done, progress.ended_at) == (None, 0, None)
    further = attrs.evolve(progress, after=SessionId("session_5"), done=5)
    await scan.save(further)
    assert await scan.find_progress() == further
    ended = await scan.end(further)
    assert ended.ended_at is not None
    assert await scan.find_progress() == ended
    again = await scan.begin()
    assert (again.after, again.done, again.ended_at) == (None, 0, None)
    assert again.started_at >= progress.started_at


async def test_a_new_slot_makes_a_backfill_begin_anew(
    scan: PostgresSessionScan, feed: PostgresChangeFeed, admin: Connection, options: ReplicationConfig
) -> None:
    progress = await scan.begin()
    await scan.save(attrs.evolve(progress, after=SessionId("session_5"), done=5))
    await admin.execute("select pg_drop_replication_slot($1)", options.slot)
    assert await scan.find_progress() is None
    async with feed.open():
        assert await scan.find_progress() is None
    with pytest.raises(IncompatibleStoreError, match="made anew"):
        await scan.end(progress)


async def test_the_number_of_sessions_is_known_about(scan: PostgresSessionScan, admin: Connection) -> None:
    await insert(admin, 1, 50)
    await admin.execute("analyze session")
    assert await scan.estimate() == 50
