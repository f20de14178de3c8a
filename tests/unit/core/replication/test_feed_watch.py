"""What is measured of the change feed, and when that is a warning."""

from __future__ import annotations

from datetime import timedelta

import anyio
import attrs
from anyio.lowlevel import checkpoint

from sessions_core.domain.events import FeedMeasured, RetentionExceeded, SystemFailed
from sessions_core.errors import StoreUnavailableError
from sessions_core.ports.feed_gauge import FeedGauge, FeedMeasure
from sessions_core.services.replication.feed_watch import FeedWatch
from unit.core.replication.kit import World

LIMIT = 1000


@attrs.define(eq=False)
class Gauge(FeedGauge):
    """Says what a test wants it to."""

    retained: int | None = 0
    problem: str | None = None
    is_away: bool = False

    async def measure(self) -> FeedMeasure | None:
        await checkpoint()
        if self.is_away:
            raise StoreUnavailableError
        if self.retained is None:
            return None
        return FeedMeasure(lag_bytes=1, retained_bytes=self.retained, problem=self.problem)


def make(world: World, gauge: Gauge) -> FeedWatch:
    return FeedWatch(gauge=gauge, dead_letters=world.letters, observer=world.observer, limit_bytes=LIMIT)


async def look_for(watch: FeedWatch, duration: timedelta) -> None:
    with anyio.move_on_after(duration.total_seconds()):
        await watch.run()


async def test_what_is_measured_is_told() -> None:
    world = World()
    await make(world, Gauge(7)).look()
    assert world.observer.events == [FeedMeasured(lag_bytes=1, retained_bytes=7, dead_letters=0)]


async def test_nothing_is_told_of_a_feed_that_is_not_there_yet() -> None:
    world = World()
    await make(world, Gauge(None)).look()
    assert world.observer.events == []


async def test_too_much_is_a_warning_at_once_and_again_while_it_lasts() -> None:
    world, gauge = World(), Gauge(LIMIT + 1)
    watch = make(world, gauge)
    await look_for(watch, timedelta(minutes=4))
    assert len(world.observer.of(RetentionExceeded)) == 1
    await look_for(watch, timedelta(minutes=7))
    assert len(world.observer.of(RetentionExceeded)) == 3
    gauge.retained = LIMIT
    await watch.look()
    gauge.retained = LIMIT + 1
    await watch.look()
    assert len(world.observer.of(RetentionExceeded)) == 4


async def test_a_store_that_is_away_is_told_of_and_asked_again() -> None:
    world, gauge = World(), Gauge(is_away=True)
    watch = make(world, gauge)
    await look_for(watch, timedelta(seconds=12))
    assert len(world.observer.of(SystemFailed)) == 3
    is_failing = [watch.is_failing]
    gauge.is_away = False
    await look_for(watch, timedelta(seconds=1))
    assert len(world.observer.of(FeedMeasured)) == 1
    assert [*is_failing, watch.is_failing] == [True, False]


async def test_a_feed_that_leaves_changes_out_is_told_of_at_once_and_again_while_it_does() -> None:
    world, gauge = World(), Gauge(problem="no table: ADD TABLE")
    watch = make(world, gauge)
    await look_for(watch, timedelta(minutes=11))
    assert [event.error for event in world.observer.of(SystemFailed)] == ["no table: ADD TABLE"] * 3
    is_failing = [watch.is_failing]
    for gauge.problem in (None, "something else"):
        await watch.look()
        is_failing.append(watch.is_failing)
    assert is_failing == [True, False, True]
    assert [event.error for event in world.observer.of(SystemFailed)][3:] == ["something else"]
