"""What the replicator brings from Postgres to ClickHouse: items 44 to 52 of the contract's section 14."""

from __future__ import annotations

import json
from datetime import timedelta

import anyio
import pytest

from harness.replication import CLOSE, DELETE, INSERT, UPDATE, Notes, Rows, Stage
from sessions_adapters.profiles import open_replication
from sessions_core.domain.events import ChangeDeadLettered, ChangesRead, Event, RowsFlushed

pytestmark = [pytest.mark.needs_postgres, pytest.mark.needs_clickhouse, pytest.mark.slow, pytest.mark.timeout(180)]

PATIENCE_SECONDS = 60


async def until_letters(stage: Stage, count: int) -> list[tuple[str, str]]:
    with anyio.fail_after(PATIENCE_SECONDS):
        while len(letters := await stage.letters()) < count:
            await anyio.sleep(0.02)
    return letters


async def until_indexed(stage: Stage, count: int) -> Rows:
    with anyio.fail_after(PATIENCE_SECONDS):
        while len(rows := await stage.indexed()) < count:
            await anyio.sleep(0.02)
    return rows


async def command(stage: Stage, statement: str) -> None:
    async with stage.index() as index:
        await index.run(lambda client: client.command(statement))


async def test_an_insert_brings_every_field_item_44(stage: Stage) -> None:
    events: list[Event] = []
    async with stage.replicating(events):
        async with stage.connection() as connection:
            await connection.execute(INSERT, 1, 30)
        rows = await stage.settle()
    assert len(rows) == 30
    assert {row[-2] for row in rows.values()} == {0, 1}, "is_test of some"


async def test_mixed_lists_in_metadata_stay_as_they_are(stage: Stage) -> None:
    metadata = {"list": [1, "x", {"deep": [True, 2.5, "y"]}], "text": "ü€😀", "object": {"a": {"b": 1}}}
    async with stage.replicating():
        async with stage.connection() as connection:
            await connection.execute(INSERT, 1, 1)
            await connection.execute(UPDATE, "session_1", "new", json.dumps(metadata))
        await stage.settle()


async def test_a_close_brings_reason_and_time_item_45(stage: Stage) -> None:
    async with stage.replicating():
        async with stage.connection() as connection:
            await connection.execute(INSERT, 1, 1)
            await stage.settle()
            await connection.execute(CLOSE, "session_1", "finished: 'well'")
        row = (await stage.settle())["session_1"]
    assert "finished: 'well'" in row


async def test_a_deleted_session_is_gone_item_46(stage: Stage) -> None:
    async with stage.replicating():
        async with stage.connection() as connection:
            await connection.execute(INSERT, 1, 2)
            await stage.settle()
            await connection.execute(DELETE, "session_1")
        assert list(await stage.settle()) == ["session_2"]


async def test_a_thousand_inserts_and_updates_arrive_item_49(stage: Stage) -> None:
    async with stage.replicating():
        async with stage.connection() as connection:
            await connection.execute(INSERT, 1, 1000)
            for number in range(1, 1001):
                await connection.execute(UPDATE, f"session_{number}", "updated", json.dumps({"round": 2}))
        rows = await stage.settle()
    assert len(rows) == 1000
    assert all("updated" in row[8] for row in rows.values())


async def test_an_insert_and_an_update_in_one_transaction_end_with_the_update_items_50_and_51(stage: Stage) -> None:
    events: list[Event] = []
    async with stage.replicating(events):
        async with stage.connection() as connection, connection.transaction():
            await connection.execute(INSERT, 1, 1)
            for number in range(5):
                await connection.execute(UPDATE, "session_1", f"u{number}", json.dumps({"n": number}))
        rows = await stage.settle()
    assert rows["session_1"][8][-1] == "u4"
    assert [event.kinds for event in events if isinstance(event, ChangesRead)] == [{"insert": 1, "update": 5}]
    assert [event.rows for event in events if isinstance(event, RowsFlushed)] == [1], "one row for all six changes"


async def test_rows_of_a_write_come_in_the_order_of_the_table_item_52(stage: Stage) -> None:
    """Whether they do shows only in the part that a write made: read without an order of its own."""
    async with stage.replicating():
        async with stage.connection() as connection, connection.transaction():
            for number in (30, 10, 20):
                await connection.execute(INSERT, number, number)
        await stage.settle()
    async with stage.index() as index:
        found = await index.query("SELECT session_id FROM sessions_v1 ORDER BY _part, _part_offset", {})
    assert [name for (name,) in found] == ["session_10", "session_20", "session_30"]


async def test_nothing_is_written_while_nothing_changes_item_47(stage: Stage) -> None:
    events: list[Event] = []
    async with stage.replicating(events):
        async with stage.connection() as connection:
            await connection.execute(INSERT, 1, 1)
            await stage.settle()
            events.clear()
            for _ in range(20):
                await connection.execute("update schema_version set applied_at = now()")
            await connection.execute(INSERT, 2, 2)
        await stage.settle()
    assert len([event for event in events if isinstance(event, RowsFlushed)]) == 1


@pytest.mark.parametrize("keep_alive", [timedelta(), timedelta(milliseconds=1), None], ids=str)
async def test_connections_may_be_kept_or_not(stage: Stage, keep_alive: timedelta | None) -> None:
    async with stage.replicating(keep_alive=keep_alive), stage.connection() as connection:
        for number in range(5):
            await connection.execute(INSERT, number, number)
            await stage.settle()


async def test_after_a_stop_it_may_be_started_again_item_60(stage: Stage) -> None:
    """The same replicator, in the same process: what happened between is brought, and nothing comes again."""
    notes = Notes()
    async with open_replication(stage.settings(), notes) as replication, stage.connection() as connection:
        for number in range(3):
            async with replication.running():
                await stage.until_streaming()
                await connection.execute(INSERT, 2 * number, 2 * number)
                await stage.settle()
            assert not replication.replicator.health.is_leader
            await connection.execute(INSERT, 2 * number + 1, 2 * number + 1)
    assert sum(event.rows for event in notes.events if isinstance(event, RowsFlushed)) == 5


async def test_what_nobody_can_read_becomes_a_dead_letter_and_all_else_goes_on(stage: Stage) -> None:
    """The index keeps the last state that could be read."""
    events: list[Event] = []
    async with stage.replicating(events), stage.connection() as connection:
        async with connection.transaction():
            await connection.execute(INSERT, 1, 3)
            before = await connection.fetchval("select environment_type from session where id = 'session_2'")
            await connection.execute("update session set environment_type = 'NOWHERE' where id = 'session_2'")
        await connection.execute(INSERT, 4, 4)
        [(session, reason)] = await until_letters(stage, 1)
        indexed = await until_indexed(stage, 4)
    assert (session, "NOWHERE" in reason) == ("session_2", True)
    stored = await stage.stored()
    assert [name for name in stored if indexed[name] != stored[name]] == ["session_2"]
    assert before in indexed["session_2"]
    assert len([event for event in events if isinstance(event, ChangeDeadLettered)]) == 1


async def test_what_clickhouse_refuses_becomes_a_dead_letter_and_all_else_goes_on(stage: Stage) -> None:
    """One row of two hundred, in a table on which somebody has put a rule of their own."""
    await command(stage, "ALTER TABLE sessions_v1 ADD CONSTRAINT own CHECK session_id != 'session_77'")
    try:
        async with stage.replicating(), stage.connection() as connection:
            await connection.execute(INSERT, 1, 200)
            [(session, reason)] = await until_letters(stage, 1)
            await until_indexed(stage, 199)
            await connection.execute(INSERT, 201, 201)
            indexed = await until_indexed(stage, 200)
    finally:
        await command(stage, "ALTER TABLE sessions_v1 DROP CONSTRAINT own")
    assert session == "session_77"
    assert "VIOLATED_CONSTRAINT" in reason
    assert (await stage.stored()).keys() - indexed.keys() == {"session_77"}


async def test_rows_that_clickhouse_gathers_are_waited_for(stage: Stage) -> None:
    """``insert_async``: acknowledged means stored here, too."""
    events: list[Event] = []
    async with stage.replicating(events, insert_async=True):
        async with stage.connection() as connection:
            await connection.execute(INSERT, 1, 100)
        while not any(isinstance(event, RowsFlushed) for event in events):
            await stage.stored()
        assert await stage.indexed() == await stage.stored()
