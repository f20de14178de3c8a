"""What changes comes into the index: how soon, in which batches, and what is acknowledged when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import anyio
import pytest

from sessions_core.domain.events import (
    ChangeDeadLettered,
    ChangesRead,
    LeadershipChanged,
    PositionAcknowledged,
    ReplicationStreamOpened,
    RowsFlushed,
)
from sessions_core.errors import InvalidError
from sessions_core.ports.change_feed import ChangeKind
from sessions_core.ports.session_index import IndexRow
from sessions_core.services.replication.config import ReplicatorConfig
from unit.core.replication.kit import POISON, ROW_BYTES, WatchedFeed, World


async def test_what_changes_is_in_the_index_a_flush_interval_later() -> None:
    world = World()
    async with world.replicator().running():
        world.put("a", "b")
        world.put("a")
        await anyio.sleep(1.1)
        world.check_equal()
        assert world.is_done()
        world.delete("b")
        world.put("c")
        await anyio.sleep(1.1)
        world.check_equal()
        assert world.is_done()
    assert world.index.writes == [2, 2]


async def test_no_row_waits_longer_than_the_flush_interval_although_others_come() -> None:
    world = World()
    async with world.replicator(flush_interval=timedelta(seconds=1)).running():
        for number in range(30):
            world.put(number)
            await anyio.sleep(0.1)
    lags = [event.lag for event in world.observer.of(RowsFlushed)]
    assert max(lags) <= timedelta(seconds=1.01)
    assert len(lags) <= 4


async def test_a_full_batch_does_not_wait() -> None:
    world = World()
    async with world.replicator(flush_batch_size=10).running():
        world.put(*range(9))
        await anyio.sleep(0.5)
        assert world.index.writes == []
        world.put(9)
        await anyio.sleep(0.01)
        assert world.index.writes == [10]


async def test_nothing_is_written_and_told_while_nothing_changes() -> None:
    world = World()
    async with world.replicator().running():
        await anyio.sleep(3600)
        told = {type(event) for event in world.observer.events}
        assert told == {LeadershipChanged, ReplicationStreamOpened}
    assert world.index.attempts == []


async def test_batches_grow_while_the_index_is_slow() -> None:
    world = World()

    async def be_slow(_: Sequence[IndexRow]) -> None:
        await anyio.sleep(10)

    world.index.mood = be_slow
    async with world.replicator(flush_batch_size=2).running():
        for number in range(60):
            world.put(number)
            await anyio.sleep(0.5)
        await world.until_done()
    world.check_equal()
    assert len(world.index.writes) <= 6
    assert world.index.busiest == 1


async def test_a_session_is_written_once_with_its_newest_state() -> None:
    world = World()
    async with world.replicator().running():
        for _ in range(20):
            world.put("a")
        world.commit(world.new_state("a"), world.new_state("b"), world.new_state("a"))
        await anyio.sleep(1.1)
        assert world.index.writes == [2]
        world.check_equal()
        assert world.is_done()


async def test_what_a_transaction_inserts_and_updates_ends_with_the_update() -> None:
    world = World()
    async with world.replicator().running():
        world.commit(world.new_state("a"), world.new_state("a"))
        await anyio.sleep(1.1)
    world.check_equal()


async def test_what_is_deleted_is_marked_so_and_what_comes_back_is_shown() -> None:
    world = World()
    async with world.replicator().running():
        world.put("a", "b")
        await anyio.sleep(2)
        world.delete("a", "b")
        await anyio.sleep(2)
        assert all(row.is_deleted for row in world.index.rows.values())
        world.put("a")
        await anyio.sleep(2)
    world.check_equal()


async def test_a_position_is_acknowledged_only_when_its_rows_are_written() -> None:
    world = World()
    written = anyio.Event()

    async def wait(_: Sequence[IndexRow]) -> None:
        await written.wait()

    world.index.mood = wait
    feed = WatchedFeed(world)
    async with world.replicator(feed=feed).running():
        world.put("a")
        await anyio.sleep(60)
        assert feed.acknowledged == []
        written.set()
        await anyio.sleep(0.1)
        assert feed.acknowledged == [1]
    assert [event.position for event in world.observer.of(PositionAcknowledged)] == [1]


async def test_parts_of_a_transaction_are_written_as_they_come_and_acknowledged_together() -> None:
    world = World()
    world.feed.batch_size = 3
    feed = WatchedFeed(world)
    async with world.replicator(feed=feed, held_rows=3, flush_batch_size=3).running():
        world.put("first")
        end = world.put(*range(20))
        await world.until_done()
    world.check_equal()
    assert max(world.index.writes) <= 6
    assert sorted(set(feed.acknowledged)) == [1, end]


async def test_several_batches_are_written_at_once_where_that_is_wanted() -> None:
    world = World()

    async def be_slow(_: Sequence[IndexRow]) -> None:
        await anyio.sleep(5)

    world.index.mood = be_slow
    async with world.replicator(flush_concurrency=3, flush_batch_size=1).running():
        for number in range(10):
            world.put(number)
            await anyio.sleep(0.5)
        await world.until_done()
    world.check_equal()
    assert world.index.busiest == 3


async def test_a_newer_state_is_not_written_beside_an_older_one_and_others_do_not_wait() -> None:
    world = World()

    async def keep_the_first_one_waiting(rows: Sequence[IndexRow]) -> None:
        if rows[0].version == 1:
            await anyio.sleep(100)

    world.index.mood = keep_the_first_one_waiting
    feed = WatchedFeed(world)
    async with world.replicator(feed=feed, flush_concurrency=2, flush_batch_size=1).running():
        world.put("a")
        await anyio.sleep(1)
        world.put("a")
        world.put("b")
        await anyio.sleep(90)
        assert [row.version for row in world.index.rows.values()] == [3]
        assert feed.acknowledged == []
        await anyio.sleep(20)
        world.check_equal()
        assert feed.acknowledged == [1, 3]


@pytest.mark.parametrize("limit", [{"held_rows": 50}, {"held_bytes": 50 * ROW_BYTES}])
async def test_no_more_is_held_than_said(limit: dict[str, Any]) -> None:
    world = World()

    async def be_away(_: Sequence[IndexRow]) -> None:
        await anyio.sleep_forever()

    world.index.mood = be_away
    feed = WatchedFeed(world)
    async with world.replicator(feed=feed, **limit, stall=timedelta(days=1)).running():
        for number in range(1000):
            world.put(number)
        await anyio.sleep(3600)
        assert len(feed.handed) == 50


async def test_what_the_index_refuses_becomes_a_dead_letter_and_all_else_is_written() -> None:
    world = World()
    async with world.replicator(flush_batch_size=30).running():
        world.put(*range(10))
        world.put("bad", type=POISON)
        world.put(*range(20, 30))
        world.put("worse", type=POISON)
        await world.until_done()
    world.check_equal()
    assert len(world.index.rows) == 20
    letters = await world.letters.list_latest(10)
    assert {letter.session for letter in letters} == {"session_bad", "session_worse"}
    assert {letter.kind for letter in letters} == {ChangeKind.INSERT}
    assert {letter.columns["type"] for letter in letters} == {POISON}
    assert all("does not take" in letter.reason for letter in letters)
    [flushed] = world.observer.of(RowsFlushed)
    assert (flushed.rows, flushed.letters) == (20, 2)
    told = world.observer.of(ChangeDeadLettered)
    assert {(event.session_id, event.version) for event in told} == {("session_bad", 2), ("session_worse", 4)}


async def test_what_nobody_can_read_becomes_a_dead_letter() -> None:
    world = World()
    async with world.replicator().running():
        world.put("a")
        world.garble("session_a")
        world.garble()
        await world.until_done()
    world.check_equal()
    assert await world.letters.count() == 2
    reads = world.observer.of(ChangesRead)
    assert [(dict(read.kinds), read.unreadable) for read in reads] == [
        ({"insert": 1}, 0),
        ({"update": 1}, 1),
        ({"update": 1}, 1),
    ]


async def test_how_much_and_how_late_is_told() -> None:
    world = World()
    world.put("a", "b")
    world.delete("b")
    await anyio.sleep(20)
    async with world.replicator().running():
        await world.until_done()
    first, second = world.observer.of(ChangesRead)
    assert (dict(first.kinds), first.lag) == ({"insert": 2}, timedelta(seconds=20))
    assert dict(second.kinds) == {"delete": 1}
    [flushed] = world.observer.of(RowsFlushed)
    assert (flushed.batch, flushed.rows, flushed.letters, flushed.attempts) == (1, 2, 0, 1)
    assert flushed.lag == pytest.approx(timedelta(seconds=21), abs=timedelta(seconds=0.1))


def make_config(field: str, value: Any) -> ReplicatorConfig:
    return ReplicatorConfig(**{field: value})


@pytest.mark.parametrize(
    "field", ["flush_batch_size", "flush_concurrency", "held_rows", "held_bytes", "insert_attempts"]
)
def test_numbers_are_at_least_one(field: str) -> None:
    with pytest.raises(InvalidError, match=field):
        make_config(field, 0)


@pytest.mark.parametrize("field", ["flush_interval", "insert_base_delay", "stall", "stop_timeout"])
def test_times_are_more_than_nothing(field: str) -> None:
    with pytest.raises(InvalidError, match=field):
        make_config(field, timedelta())


@pytest.mark.parametrize("field", ["insert_jitter", "leader_lock_additional_time"])
def test_some_times_may_be_nothing_but_not_less(field: str) -> None:
    make_config(field, timedelta())
    with pytest.raises(InvalidError, match=field):
        make_config(field, timedelta(seconds=-1))
