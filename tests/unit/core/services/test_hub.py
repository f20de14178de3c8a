"""One upstream reading per channel, whatever its readers do."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import attrs
import pytest

from sessions_core.domain.channel import Batch, Channel, Io, NewRecord
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.domain.ids import AddressingKey
from sessions_core.errors import ChannelUnavailableError
from sessions_core.services import hub as hub_module
from sessions_core.services.hub import Hub, Reader
from unit.core.chats import HOME
from unit.core.taps import Tap, Tapped
from unit.core.world import World, run_virtually

CHANNEL = Channel(HOME.id, AddressingKey("k"), Io.OUT)


@attrs.define
class Watched(Tap):
    """Counts what is asked of the log."""

    follows: int = 0
    reads: int = 0

    async def before(self, call: str) -> None:
        self.reads += call == "ChannelLog.read"


class CountedLog(Tapped):
    """A log that counts its followers, and can lose them all."""

    def __init__(self, inner: Any, tap: Watched) -> None:
        super().__init__(inner, tap)
        self.watched = tap
        self.open = 0
        self.lost = anyio.Event()

    @asynccontextmanager
    async def _follow(self, channel: Channel, start: int) -> AsyncGenerator[AsyncIterator[Batch]]:
        self.watched.follows += 1
        self.open += 1
        try:
            async with self._inner.follow(channel, start) as batches:
                yield _Breakable(batches, self)
        finally:
            self.open -= 1


@attrs.define
class _Breakable(AsyncIterator[Batch]):
    inner: AsyncIterator[Batch]
    log: CountedLog

    async def __anext__(self) -> Batch:
        found: list[Batch] = []

        async def read() -> None:
            found.append(await anext(self.inner))
            tasks.cancel_scope.cancel()

        async def lose() -> None:
            await self.log.lost.wait()
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(lose)
        if not found:
            raise ChannelUnavailableError
        return found[0]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def log(world: World) -> CountedLog:
    return CountedLog(world.log, Watched())


async def write(world: World, *bodies: bytes) -> None:
    await world.log.append(CHANNEL, [NewRecord(body) for body in bodies], guard=UNTOUCHED)


async def take(reader: Reader, count: int) -> list[int]:
    seqs: list[int] = []
    with anyio.fail_after(60):
        while len(seqs) < count:
            seqs += [record.seq for record in (await reader.next()).records]
    return seqs


@attrs.define
class Moody:
    """A push that takes some batches and refuses others."""

    rng: random.Random
    seen: list[int]
    takes: float = 0.7

    def __call__(self, batch: Batch) -> bool:
        is_taken = self.rng.random() < self.takes
        if is_taken:
            self.seen += [record.seq for record in batch.records]
        return is_taken


async def test_readers_share_one_upstream_reading_and_its_encodings(world: World, log: Any) -> None:
    encoded: list[Batch] = []

    def encode(batch: Batch) -> bytes:
        encoded.append(batch)
        return b"".join(record.body for record in batch.records)

    hub = Hub(log)
    got: list[bytes] = []

    async def read() -> None:
        async with hub.open(CHANNEL, 0) as reader:
            got.extend([(await reader.next()).encoded(encode) for _ in range(3)])

    async with hub, anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(read)
        await anyio.sleep(0.1)
        assert hub.channels == 1
        for body in (b"a", b"b", b"c"):
            await write(world, body)
            await anyio.sleep(0.1)
    assert sorted(got) == [b"a"] * 20 + [b"b"] * 20 + [b"c"] * 20
    assert len(encoded) == 3
    assert log.watched.follows == 1
    assert log.watched.reads == 0


async def test_a_feed_ends_when_its_last_reader_leaves(world: World, log: Any) -> None:
    async with Hub(log) as hub:
        async with hub.open(CHANNEL, 0):
            async with hub.open(CHANNEL, 0):
                await anyio.sleep(0.1)
            assert (hub.channels, log.open) == (1, 1)
        await anyio.sleep(0.1)
        assert (hub.channels, log.open) == (0, 0)
        async with hub.open(CHANNEL, 0) as reader:
            await write(world, b"x")
            assert await take(reader, 1) == [0]
    assert log.watched.follows == 2


async def test_readers_that_come_at_once_join_one_feed(log: Any) -> None:
    async def read() -> None:
        async with hub.open(CHANNEL, 0):
            await anyio.sleep(1)

    async with Hub(log) as hub, anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(read)
    assert log.watched.follows == 1


async def test_a_slow_reader_falls_back_to_the_log_and_delays_nobody(
    world: World, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "RING_BATCHES", 4)
    async with Hub(log) as hub, hub.open(CHANNEL, 0) as slow, hub.open(CHANNEL, 0) as quick:
        for number in range(20):
            await write(world, b"%d" % number)
            assert await take(quick, 1) == [number]
        assert log.watched.reads == 0
        assert not slow.is_caught_up
        assert await take(slow, 20) == list(range(20))
        assert log.watched.reads >= 1
        assert slow.is_caught_up


async def test_the_ring_is_bounded_in_bytes_too(world: World, log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "RING_BYTES", 3000)
    async with Hub(log) as hub, hub.open(CHANNEL, 0) as reader:
        for _ in range(10):
            await write(world, b"x" * 1000)
            await anyio.sleep(0.01)
        feed = hub._feeds[CHANNEL]
        assert len(feed.ring) < 4
        await write(world, b"x" * 10_000)
        await anyio.sleep(0.01)
        assert len(feed.ring) == 1, "a single batch is kept however large"
        assert await take(reader, 11) == list(range(11))


async def test_what_was_trimmed_before_a_slow_reader_came_is_skipped(
    world: World, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "RING_BATCHES", 2)
    async with Hub(log) as hub, hub.open(CHANNEL, 0) as reader:
        for number in range(6):
            await write(world, b"%d" % number)
            await anyio.sleep(0.01)
        await world.log.trim(CHANNEL, 5, guard=UNTOUCHED)
        assert await take(reader, 2) == [5, 6]


async def test_a_cancelled_wait_loses_nothing(world: World, log: Any) -> None:
    async with Hub(log) as hub, hub.open(CHANNEL, 0) as reader:
        with anyio.move_on_after(0.1):
            await reader.next()
        await write(world, b"x")
        assert await take(reader, 1) == [0]


async def test_a_push_takes_what_comes_on_the_spot_and_the_wait_goes_on(world: World, log: Any) -> None:
    pushed: list[int] = []
    push = Moody(random.Random(0), pushed, takes=1.0)
    async with Hub(log) as hub, hub.open(CHANNEL, 0) as reader, hub.open(CHANNEL, 0) as other:
        with anyio.move_on_after(1) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reader.next, push)
                for number in range(3):
                    await anyio.sleep(0.1)
                    await write(world, b"%d" % number)
        assert scope.cancelled_caught, "the wait did not end"
        assert pushed == [0, 1, 2]
        assert (reader.position, reader.is_caught_up) == (3, True)
        await write(world, b"3")
        assert await take(reader, 1) == [3], "a push lasts as long as its wait"
        assert await take(other, 4) == [0, 1, 2, 3]


async def test_what_a_push_refuses_is_returned(world: World, log: Any) -> None:
    async with Hub(log) as hub, hub.open(CHANNEL, 0) as reader, hub.open(CHANNEL, 0) as willing:
        taken: list[int] = []
        with anyio.move_on_after(1):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(willing.next, Moody(random.Random(0), taken, takes=1.0))
                tasks.start_soon(write, world, b"x")
                batch = await reader.next(lambda _: False)
                assert [record.seq for record in batch.records] == [0]
        assert taken == [0], "one that refuses keeps nothing from the others"


async def test_a_push_is_offered_nothing_that_begins_before_its_position(world: World, log: Any) -> None:
    async with Hub(log) as hub, hub.open(CHANNEL, 1) as reader, anyio.create_task_group() as tasks:
        tasks.start_soon(write, world, b"0", b"1", b"2")
        batch = await reader.next(lambda _: True)
        assert [record.seq for record in batch.records] == [1, 2]


async def test_a_lost_log_is_told_to_every_reader_and_a_new_reading_works(world: World, log: Any) -> None:
    async with Hub(log) as hub:
        async with hub.open(CHANNEL, 0) as one, hub.open(CHANNEL, 0) as other:
            await write(world, b"0")
            assert await take(one, 1) == [0]
            log.lost.set()
            await anyio.sleep(0.1)
            with pytest.raises(ChannelUnavailableError):
                await one.next()
            assert await take(other, 1) == [0], "what is in the ring is still given"
            with pytest.raises(ChannelUnavailableError):
                await other.next()
            log.lost = anyio.Event()
            await write(world, b"1")
            async with hub.open(CHANNEL, one.position) as again:
                assert await take(again, 1) == [1]
        await anyio.sleep(0.1)
        assert (hub.channels, log.open) == (0, 0)


async def test_a_reader_that_begins_past_the_tail_waits_for_that_record(world: World, log: Any) -> None:
    async with Hub(log) as hub, hub.open(CHANNEL, 2) as reader:
        for number in range(4):
            await write(world, b"%d" % number)
        assert await take(reader, 2) == [2, 3]


async def test_the_hub_stops_its_feeds_when_it_ends(log: Any) -> None:
    async with Hub(log) as hub:
        context = hub.open(CHANNEL, 0)
        await context.__aenter__()
        await anyio.sleep(0.1)
        assert log.open == 1
    assert log.open == 0
    await context.__aexit__(None, None, None)


async def test_the_hub_lets_an_error_of_its_block_out(log: Any) -> None:
    async def fail() -> None:
        async with Hub(log) as hub, hub.open(CHANNEL, 0):
            await anyio.sleep(0.1)
            raise KeyError

    with pytest.raises(KeyError):
        await fail()


@pytest.mark.parametrize("block", range(4))
def test_readers_of_any_speed_see_every_record_once_and_in_order(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "RING_BATCHES", 3)
    monkeypatch.setattr(hub_module, "CATCH_UP_RECORDS", 4)

    async def main(rng: random.Random) -> None:
        world = World()
        log: Any = CountedLog(world.log, Watched())
        total = 40

        async def read(start: int, late: float) -> None:
            await anyio.sleep(late)
            seen: list[int] = []
            position = start
            push = Moody(rng, seen)
            while position < total:
                async with hub.open(CHANNEL, position) as reader:
                    while position < total:
                        pushes = rng.random() < 0.5
                        with anyio.move_on_after(rng.choice((0.001, 0.05, 0.5 if pushes else None))):
                            batch = await reader.next(push if pushes else None)
                            seen += [record.seq for record in batch.records]
                        position = seen[-1] + 1 if seen else start
                        await anyio.sleep(rng.choice((0, 0, 0.01, 0.3)))
                        if rng.random() < 0.1:
                            break
            assert seen == list(range(start, total))

        async with Hub(log) as hub, anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(read, rng.randrange(total), rng.random() * 2)
            written = 0
            while written < total:
                count = min(rng.choice((1, 1, 2, 5)), total - written)
                await write(world, *[b"x"] * count)
                written += count
                await anyio.sleep(rng.choice((0, 0.01, 0.1)))
        assert log.open == 0

    for seed in range(block * 25, block * 25 + 25):
        run_virtually(partial(main, random.Random(seed)))
