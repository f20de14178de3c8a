"""A process dies at any call of any port, and the next one loses nothing. Then chance thinks of everything else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta

import anyio
import attrs
import pytest

from sessions_core.errors import (
    IncompatibleStoreError,
    IndexUnavailableError,
    StoreInUseError,
    StoreUnavailableError,
)
from sessions_core.ports.session_index import IndexRow
from unit.core.replication.kit import POISON, WatchedFeed, World, survive
from unit.core.taps import CrashAt, Shuffle

STORIES = 6
"""How many each test tells."""


async def write_a_little_of_everything(world: World) -> None:
    """Commit in several moments; together with the answers of the ports that makes a few dozen steps."""
    world.put("a", "b", "c")
    world.put("a")
    await anyio.sleep(1.2)
    world.put("a", "d")
    world.put("bad", type=POISON)
    world.garble()
    await anyio.sleep(1.2)
    world.delete("b")
    world.put(*range(7))
    world.put("c", "bad")


async def crash_at(step: int) -> bool:
    """Let the first process die at *step*. Return whether it got as far as that."""
    world, tap = World(), CrashAt(step, is_armed=True)
    world.feed.batch_size = 3
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(survive, world.replicator(tap))
        await write_a_little_of_everything(world)
        await anyio.sleep(3)
        tasks.cancel_scope.cancel()
    async with world.replicator().running():
        await world.until_done()
    world.check_equal()
    assert not world.lock.holders
    return tap.is_dead


async def test_nothing_is_lost_wherever_a_process_dies() -> None:
    step = 0
    while await crash_at(step):
        step += 1
    assert step > 30


@attrs.define(eq=False)
class Story:
    """One run of the simulation: writers, an index and a feed in all moods, and processes that come and go."""

    rng: random.Random
    crashes: float = 0.0
    outages: float = 0.0
    slowness: float = 0.0
    breaks: float = 0.0
    losses: float = 0.0
    stops: float = 0.0
    poison: float = 0.0
    processes: int = 1
    concurrency: int = 1
    world: World = attrs.field(factory=World)
    taps: dict[int, Shuffle] = attrs.field(factory=dict)
    feeds: dict[int, WatchedFeed] = attrs.field(factory=dict)
    is_calm: bool = False

    async def tell(self) -> None:
        """Live through the story and check how it ends."""
        self.world.index.mood = self.world.index.after = self._mood
        self.world.feed.batch_size = self.rng.choice((1, 3, 100))
        async with anyio.create_task_group() as tasks:
            for slot in range(self.processes):
                tasks.start_soon(self._keep_running, slot)
            await self._write()
            self.is_calm = True
            for tap in self.taps.values():
                tap.is_calm = True
            for feed in self.feeds.values():
                feed.errors = []
            await self.world.until_done()
            tasks.cancel_scope.cancel()
        self.world.check_equal()
        self._check_memory()

    def _happens(self, chance: float) -> bool:
        return not self.is_calm and self.rng.random() < chance

    async def _mood(self, rows: Sequence[IndexRow]) -> None:
        if self._happens(self.slowness):
            await anyio.sleep(self.rng.choice((0.1, 2.0, 20.0, 80.0)))
        if self._happens(self.outages):
            some = [row for row in rows if row.session.type != POISON and self.rng.random() < 0.5]
            self.world.index.keep(some)
            raise IndexUnavailableError

    async def _write(self) -> None:
        for _ in range(40):
            await anyio.sleep(self.rng.choice((0.0, 0.0, 0.01, 0.3, 1.0, 5.0)))
            self._commit()
            self._shake()

    def _commit(self) -> None:
        world, rng = self.world, self.rng
        kind = POISON if self._happens(self.poison) else "chat"
        names = [rng.randrange(12) for _ in range(rng.choice((1, 1, 2, 8)))]
        alive = [name for name in set(names) if f"session_{name}" in world.sessions]
        if self._happens(self.poison):
            world.garble(rng.choice((None, "session_1")))
        elif alive and rng.random() < 0.2:
            world.delete(*alive)
        else:
            world.put(*names, type=kind)

    def _shake(self) -> None:
        if self._happens(self.losses):
            self.world.lock.lose()
        for feed in self.feeds.values():
            if self._happens(self.breaks):
                feed.break_with(StoreUnavailableError())
            if self._happens(self.breaks):
                error = (StoreUnavailableError(), StoreInUseError("one"), IncompatibleStoreError("two"))
                feed.errors.append(self.rng.choice(error))

    async def _keep_running(self, slot: int) -> None:
        while True:
            tap = self.taps[slot] = Shuffle(self.rng, crashes=0.0 if self.is_calm else self.crashes)
            tap.is_calm = self.is_calm
            feed = self.feeds[slot] = WatchedFeed(self.world, tap)
            with anyio.CancelScope() as scope:
                if self._happens(self.stops):
                    scope.deadline = anyio.current_time() + self.rng.choice((0.0, 0.5, 5.0, 30.0))
                await survive(
                    self.world.replicator(
                        tap,
                        feed=feed,
                        held_rows=10,
                        flush_batch_size=4,
                        flush_concurrency=self.concurrency,
                        stall=timedelta(seconds=5),
                        stop_timeout=timedelta(seconds=2),
                    )
                )
            await anyio.sleep(self.rng.choice((0.0, 0.3, 3.0)))

    def _check_memory(self) -> None:
        assert max(self.world.index.writes) <= 10 + 100
        assert self.world.index.busiest <= self.concurrency * self.processes


@pytest.mark.parametrize("block", range(3))
@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param({}, id="calm"),
        pytest.param({"outages": 0.5}, id="index-away"),
        pytest.param({"slowness": 0.5}, id="index-slow"),
        pytest.param({"slowness": 0.3, "outages": 0.3, "concurrency": 3}, id="index-odd-and-busy"),
        pytest.param({"poison": 0.3}, id="rows-refused"),
        pytest.param({"breaks": 0.3}, id="feed-breaking"),
        pytest.param({"losses": 0.3, "processes": 2}, id="leader-lost"),
        pytest.param({"stops": 0.9, "processes": 2}, id="stopping"),
        pytest.param({"crashes": 0.03, "processes": 2}, id="dying"),
        pytest.param(
            {
                "crashes": 0.01,
                "outages": 0.2,
                "slowness": 0.2,
                "breaks": 0.1,
                "losses": 0.1,
                "stops": 0.3,
                "poison": 0.1,
                "processes": 3,
                "concurrency": 2,
            },
            id="everything",
        ),
    ],
)
async def test_the_index_ends_up_like_the_store_in_every_story(trouble: dict[str, float], block: int) -> None:
    for seed in range(STORIES * block, STORIES * (block + 1)):
        try:
            await Story(random.Random(seed), **trouble).tell()  # type: ignore[arg-type]
        except BaseException as error:
            error.add_note(f"in the story of seed {seed}")
            raise
