"""One process replicates at a time; it can be stopped at any moment, and loses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import anyio
import pytest

from sessions_core.domain.events import LeadershipChanged
from sessions_core.errors import IncompatibleStoreError, IndexUnavailableError, StoreUnavailableError
from sessions_core.ports.session_index import IndexRow
from sessions_core.services.replication.health import Health
from unit.core.replication.kit import WatchedFeed, World
from unit.core.taps import SlowAt

ONCE = 1.5


async def never(_: Sequence[IndexRow]) -> None:
    raise IndexUnavailableError


async def test_only_one_of_two_reads_and_the_other_takes_over() -> None:
    world = World()
    feeds = [WatchedFeed(world), WatchedFeed(world)]
    async with anyio.create_task_group() as tasks:
        scopes = [anyio.CancelScope(), anyio.CancelScope()]

        async def replicate(number: int) -> None:
            with scopes[number]:
                await world.replicator(feed=feeds[number]).run()

        for number in range(2):
            tasks.start_soon(replicate, number)
        world.put("a")
        await world.until_done()
        first = 0 if feeds[0].opened else 1
        assert feeds[1 - first].opened == []
        scopes[first].cancel()
        world.put("b")
        await world.until_done()
        assert len(feeds[1 - first].handed) == 1, "the second one reads on where the first one stopped"
        tasks.cancel_scope.cancel()
    world.check_equal()


async def test_who_loses_leadership_writes_nothing_more() -> None:
    world = World()
    feed = WatchedFeed(world)
    replicator = world.replicator(feed=feed)
    async with replicator.running():
        world.put("a")
        await anyio.sleep(0.1)
        async with anyio.create_task_group() as tasks:
            world.lock.lose()
            other = WatchedFeed(world)
            tasks.start_soon(world.replicator(feed=other).run)
            await anyio.sleep(ONCE)
            assert feed.open_now == 0
            assert replicator.health == Health()
            await world.until_done()
            assert feed.acknowledged == []
            tasks.cancel_scope.cancel()
    world.check_equal()
    assert world.index.writes == [1]


async def test_who_lost_leadership_leads_again_when_it_can() -> None:
    world = World()
    async with world.replicator().running():
        for number in range(5):
            world.put(number)
            await anyio.sleep(0.1 + 0.3 * number)
            world.lock.lose()
        world.put("last")
        await world.until_done()
    world.check_equal()
    told = [event.is_leader for event in world.observer.of(LeadershipChanged)]
    assert told == [True, False] * 6


async def test_who_waits_long_says_so_and_goes_on_waiting() -> None:
    world = World()
    async with world.lock.hold("somebody else"), anyio.create_task_group() as tasks:
        tasks.start_soon(world.replicator().run)
        await anyio.sleep(39)
        assert world.observer.events == []
        await anyio.sleep(2)
        assert world.observer.events == [LeadershipChanged(name="replication", is_leader=False)]
        await anyio.sleep(3600)
        assert len(world.observer.events) == 1
        tasks.cancel_scope.cancel()


async def test_a_stop_writes_and_acknowledges_what_was_read() -> None:
    world = World()
    feed = WatchedFeed(world)
    began = anyio.current_time()
    async with world.replicator(feed=feed).running():
        world.put("a", "b")
        await anyio.sleep(0.1)
    assert anyio.current_time() - began < 0.2
    world.check_equal()
    assert world.is_done()
    again = WatchedFeed(world)
    async with world.replicator(feed=again).running():
        await anyio.sleep(ONCE)
    assert again.handed == []


async def test_being_cancelled_is_a_stop_as_well() -> None:
    world = World()
    with anyio.move_on_after(0.1):
        async with world.replicator().running():
            world.put("a")
            await anyio.sleep_forever()
    world.check_equal()
    assert world.is_done()


async def test_a_stop_takes_no_longer_than_it_may_and_what_is_left_comes_again() -> None:
    world = World()
    world.index.mood = never
    async with world.replicator(stop_timeout=timedelta(seconds=5)).running():
        world.put("a")
        await anyio.sleep(ONCE)
        began = anyio.current_time()
    assert anyio.current_time() - began == pytest.approx(5, abs=0.1)
    assert not world.is_done()
    assert not world.lock.holders
    world.index.mood = World().index.mood
    async with world.replicator().running():
        await world.until_done()
    world.check_equal()


async def test_a_stop_in_the_middle_of_a_transaction_loses_nothing_of_it() -> None:
    world = World()
    world.feed.batch_size = 2
    feed = WatchedFeed(world)

    async def be_slow(_: Sequence[IndexRow]) -> None:
        await anyio.sleep(1)

    world.index.mood = be_slow
    async with world.replicator(feed=feed, held_rows=4).running():
        world.put("before")
        end = world.put(*range(30))
        await anyio.sleep(5)
    assert end not in feed.acknowledged
    assert 1 in feed.acknowledged
    async with world.replicator().running():
        await world.until_done()
    world.check_equal()


@pytest.mark.parametrize("moment", ["waiting", "opening", "pausing", "idle"])
async def test_a_stop_at_any_other_moment_is_done_at_once_and_leaves_nobody_leading(moment: str) -> None:
    world = World()
    feed = WatchedFeed(world, SlowAt("open", 1000) if moment == "opening" else SlowAt("", 0))
    if moment == "pausing":
        feed.errors = [StoreUnavailableError() for _ in range(10)]
    holder = anyio.CancelScope()
    if moment == "waiting":
        world.lock.holders.append(holder)
    replicator = world.replicator(feed=feed)
    async with replicator.running():
        await anyio.sleep(10.3)
        began = anyio.current_time()
    assert anyio.current_time() - began < 0.01
    assert feed.open_now == 0
    assert world.lock.holders == [holder] * (moment == "waiting")
    assert not replicator.health.is_leader


async def test_a_stop_right_after_the_start_leaves_nobody_leading() -> None:
    world = World()
    for _ in range(10):
        async with world.replicator().running():
            pass
    assert not world.lock.holders
    assert not world.feed._is_open


async def test_after_a_stop_it_may_be_run_again() -> None:
    world = World()
    replicator = world.replicator()
    for number in range(3):
        async with replicator.running():
            world.put(number)
            await world.until_done()
    world.check_equal()


async def test_what_is_nobodys_plan_leaves_as_itself() -> None:
    world = World()

    async def divide(_: Sequence[IndexRow]) -> None:
        raise ZeroDivisionError

    world.index.mood = divide
    world.put("a")
    with pytest.raises(ZeroDivisionError):
        await world.replicator().run()
    assert not world.lock.holders
    with pytest.raises(KeyError):
        async with world.replicator().running():
            raise KeyError


async def test_a_stop_while_what_a_broken_stream_brought_is_written_does_not_wait_for_the_next_one() -> None:
    world = World()

    async def be_slow(_: Sequence[IndexRow]) -> None:
        await anyio.sleep(5)

    world.index.mood = be_slow
    feed = WatchedFeed(world)
    async with world.replicator(feed=feed).running():
        world.put("a")
        await anyio.sleep(0.1)
        feed.break_with(IncompatibleStoreError("the next one comes half a minute later"))
        await anyio.sleep(1)
        began = anyio.current_time()
    assert anyio.current_time() - began < 5
    world.check_equal()
