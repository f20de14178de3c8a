"""Whatever is away, slow or broken is tried again, and nothing is lost by that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from itertools import pairwise

import anyio
import attrs
import pytest

from sessions_core.domain.events import (
    FlushAttemptFailed,
    ReplicationStreamClosed,
    ReplicationStreamOpened,
    RowsFlushed,
)
from sessions_core.errors import (
    IncompatibleStoreError,
    IndexUnavailableError,
    SessionsError,
    StoreInUseError,
    StoreUnavailableError,
)
from sessions_core.ports.dead_letters import DeadLetter
from sessions_core.ports.session_index import IndexRow
from sessions_core.services.replication.health import Health
from unit.core.replication.kit import POISON, WatchedFeed, World

HOUR = 3600


def away_until(time: float) -> Callable[[Sequence[IndexRow]], Awaitable[None]]:
    async def mood(_: Sequence[IndexRow]) -> None:
        if anyio.current_time() < time:
            raise IndexUnavailableError

    return mood


def gaps(moments: list[float]) -> list[float]:
    return [round(later - earlier, 3) for earlier, later in pairwise(moments)]


# --- The index ---


async def test_an_index_that_is_away_is_tried_again_for_as_long_as_it_takes() -> None:
    world = World()
    world.index.mood = away_until(anyio.current_time() + HOUR)
    async with world.replicator().running():
        world.put("a")
        await anyio.sleep(HOUR + 10)
        world.check_equal()
        assert world.is_done()
    assert gaps(world.index.attempts)[:7] == [0.15, 0.25, 0.45, 0.85, 1.65, 2.05, 2.05]


async def test_failures_are_told_and_every_so_many_of_them_count_as_a_failed_batch() -> None:
    world = World()
    world.index.mood = away_until(anyio.current_time() + 3)
    async with world.replicator().running():
        world.put("a")
        await world.until_done()
    failed = world.observer.of(FlushAttemptFailed)
    assert [event.attempt for event in failed] == list(range(1, len(failed) + 1))
    assert [event.is_failed for event in failed] == [event.attempt % 3 == 0 for event in failed]
    assert {(event.batch, event.rows, event.error) for event in failed} == {
        (1, 1, "The session index is unavailable; try again")
    }
    [flushed] = world.observer.of(RowsFlushed)
    assert flushed.attempts == len(failed) + 1


async def test_what_adapters_note_about_a_failure_is_told() -> None:
    world = World()
    full, gone = IndexUnavailableError(), StoreUnavailableError()
    full.add_note("NOT_ENOUGH_SPACE")
    gone.add_note("ConnectionRefusedError")

    async def mood(_: Sequence[IndexRow]) -> None:
        world.index.mood = away_until(0)
        raise full

    world.index.mood = mood
    async with world.replicator(feed=WatchedFeed(world, errors=[gone])).running():
        world.put("a")
        await world.until_done()
    [failed], [closed, _] = world.observer.of(FlushAttemptFailed), world.observer.of(ReplicationStreamClosed)
    assert failed.error == "The session index is unavailable; try again; NOT_ENOUGH_SPACE"
    assert closed.error == "The session store is unavailable; try again; ConnectionRefusedError"


async def test_a_batch_too_large_to_be_written_in_time_is_halved() -> None:
    world = World()

    async def take_little(rows: Sequence[IndexRow]) -> None:
        if len(rows) > 10:
            await anyio.sleep(10)
            raise IndexUnavailableError

    world.index.mood = take_little
    async with world.replicator().running():
        world.put(*range(100))
        await world.until_done()
    world.check_equal()
    assert max(world.index.writes) <= 10


async def test_an_index_that_comes_back_does_not_get_its_rows_one_by_one() -> None:
    world = World()
    world.index.mood = away_until(anyio.current_time() + HOUR)
    async with world.replicator().running():
        world.put(*range(1000))
        await world.until_done()
    world.check_equal()
    assert len(world.index.writes) <= 12


async def test_a_write_that_may_have_happened_is_written_again() -> None:
    world = World()

    async def fail_afterwards(_: Sequence[IndexRow]) -> None:
        world.index.after = world.index.mood
        raise IndexUnavailableError

    world.index.after = fail_afterwards
    async with world.replicator().running():
        world.put("a")
        await world.until_done()
    world.check_equal()
    assert world.index.writes == [1, 1]


async def test_dead_letters_are_stored_before_anything_is_acknowledged() -> None:
    world = World()
    end = anyio.current_time() + 100

    @attrs.define
    class Away(type(world.letters)):  # type: ignore[misc]
        async def store(self, letters: Sequence[DeadLetter]) -> int:
            if anyio.current_time() < end:
                raise StoreUnavailableError
            return await super().store(letters)  # type: ignore[no-any-return]

    world.letters = Away()
    feed = WatchedFeed(world)
    async with world.replicator(feed=feed).running():
        world.put("a", type=POISON)
        world.garble()
        await anyio.sleep(90)
        assert feed.acknowledged == []
        await world.until_done()
    assert await world.letters.count() == 2


# --- Back-pressure ---


async def test_a_stream_is_closed_when_nothing_can_be_written_for_long_and_opened_again_later() -> None:
    world = World()
    world.index.mood = away_until(anyio.current_time() + HOUR)
    feed = WatchedFeed(world)
    async with world.replicator(feed=feed, held_rows=10).running():
        world.put(*range(5))
        await anyio.sleep(60)
        assert feed.open_now == 1  # there is room
        for number in range(50):
            world.put(number)
        await anyio.sleep(20)
        assert feed.open_now == 1
        await anyio.sleep(20)
        assert feed.open_now == 0
        [closed] = world.observer.of(ReplicationStreamClosed)
        assert (closed.error, closed.pause) == ("Nothing could be written for too long", None)
        await anyio.sleep(HOUR)
        assert feed.open_now == 1
        world.check_equal()
        assert world.is_done()


async def test_writes_that_take_longer_than_a_stream_may_stall_get_on_all_the_same() -> None:
    world = World()

    async def be_very_slow(_: Sequence[IndexRow]) -> None:
        await anyio.sleep(100)

    world.index.mood = be_very_slow
    async with world.replicator(held_rows=5, stall=timedelta(seconds=10)).running():
        for number in range(30):
            world.put(number)
        await world.until_done(longest=2 * HOUR)
    world.check_equal()


# --- The feed ---


async def test_a_stream_that_breaks_is_opened_again_in_growing_pauses() -> None:
    world = World()
    feed = WatchedFeed(world, errors=[StoreUnavailableError() for _ in range(7)])
    async with world.replicator(feed=feed).running():
        await anyio.sleep(300)
        assert gaps(feed.opened) == [1, 2, 4, 8, 16, 30, 30]
        feed.errors = [StoreUnavailableError()]
        feed.break_with(StoreUnavailableError())
        world.put("a")
        await world.until_done()
    assert gaps(feed.opened)[8:] == [2], "the first pause is a second again"
    closed = world.observer.of(ReplicationStreamClosed)
    assert [event.is_lasting for event in closed] == [False] * 5 + [True] * 2 + [False] * 3
    assert closed[-1].error is None
    assert len(world.observer.of(ReplicationStreamOpened)) == 2


@pytest.mark.parametrize(
    ("error", "pause", "is_lasting"),
    [
        (StoreUnavailableError(), 1, False),
        (StoreInUseError("somebody else"), 1, False),
        (IncompatibleStoreError("alter the publication"), 30, True),
    ],
)
async def test_what_a_person_must_mend_is_told_and_tried_again_at_the_longest_pause(
    error: SessionsError, pause: float, is_lasting: bool
) -> None:
    world = World()
    feed = WatchedFeed(world, errors=[error])
    async with world.replicator(feed=feed).running():
        world.put("a")
        await world.until_done()
    assert gaps(feed.opened) == [pause]
    closed = world.observer.of(ReplicationStreamClosed)[0]
    assert (closed.error, closed.is_lasting) == (str(error), is_lasting)


async def test_what_was_read_before_a_stream_broke_is_written_without_it() -> None:
    world = World()
    feed = WatchedFeed(world)
    async with world.replicator(feed=feed).running():
        world.put("a")
        await anyio.sleep(0.1)
        feed.errors = [StoreUnavailableError() for _ in range(100)]
        feed.break_with(StoreUnavailableError())
        await anyio.sleep(0.1)
        world.check_equal()
        assert feed.acknowledged == []


async def test_what_was_written_and_not_acknowledged_comes_again_and_does_no_harm() -> None:
    world = World()
    feed = WatchedFeed(world)

    async def break_the_stream(_: Sequence[IndexRow]) -> None:
        feed.break_with(StoreUnavailableError())
        world.index.mood = away_until(0)
        await anyio.sleep(1)

    world.index.mood = break_the_stream
    async with world.replicator(feed=feed).running():
        world.put("a")
        await world.until_done()
    assert world.index.writes == [1, 1]
    world.check_equal()


async def test_health_says_what_fails_and_since_when() -> None:
    world = World()
    feed = WatchedFeed(world, errors=[StoreUnavailableError() for _ in range(2)])
    replicator = world.replicator(feed=feed)
    assert (replicator.health.is_leader, replicator.health.is_streaming) == (False, False)
    async with replicator.running():
        began = world.clock.now()
        await anyio.sleep(1.5)
        health = replicator.health
        assert (health.is_leader, health.is_streaming) == (True, False)
        assert health.failing_since == pytest.approx(began, abs=timedelta(seconds=0.1))
        await anyio.sleep(10)
        assert (replicator.health.is_streaming, replicator.health.failing_since) == (True, None)
        world.index.mood = away_until(anyio.current_time() + 100)
        world.put("a")
        began = world.clock.now()
        await anyio.sleep(50)
        assert replicator.health.failing_since == pytest.approx(began, abs=timedelta(seconds=2))
        await anyio.sleep(60)
        assert replicator.health == Health(is_leader=True, is_streaming=True)
    assert (replicator.health.is_leader, replicator.health.is_streaming) == (False, False)
