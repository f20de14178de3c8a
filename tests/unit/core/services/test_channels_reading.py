"""Reading channels up to what is there and beyond, settled readings, trimming."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest

from sessions_core.domain.channel import TURN_COMPLETE, Batch, Channel, Io, Record, control_record, data_record
from sessions_core.domain.guard import UNTOUCHED, Guard
from sessions_core.domain.ids import AddressingKey, PartId
from sessions_core.domain.session import Session
from sessions_core.errors import SessionClosedError, StaleRunError
from sessions_core.facade import Sessions
from unit.core.chats import HOME, NAME, spec
from unit.core.taps import Tap, Tapped
from unit.core.world import World

# --- Reading --------------------------------------------------------------------------------------


async def fill(world: World, channel: Channel, count: int) -> None:
    """Append *count* data records around the services."""
    guard = (await world.log.tail(channel)).guard
    for number in range(count):
        await world.log.append(channel, [data_record(number, PartId(f"fill{number}"), dedupe=False)], guard=guard)


async def complete(world: World, channel: Channel, covered: int = 0) -> None:
    guard = (await world.log.tail(channel)).guard
    await world.log.append(channel, [control_record(TURN_COMPLETE, {"session-in-event-id": str(covered)})], guard=guard)


async def test_records_reads_everything_or_up_to_a_limit(
    world: World, sessions: Sessions, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessions_core.services.channel_service.READ_RECORDS", 3)
    channel = session.channel(Io.OUT)
    await fill(world, channel, 10)
    everything = await sessions.channels.records(channel, 0)
    assert [record.seq for record in everything.records] == list(range(10))
    assert everything.next_seq == 10
    some = await sessions.channels.records(channel, 4, 2)
    assert [record.seq for record in some.records] == [4, 5]
    assert (await sessions.channels.records(channel, 99)).records == ()


async def drain(reading: Any, count: int) -> list[Record]:
    got: list[Record] = []
    while len(got) < count:
        batch = await reading.next(5)
        assert batch is not None, f"only {len(got)} of {count}"
        got.extend(batch.records)
    return got


@pytest.mark.parametrize(
    ("after", "first", "gap"),
    [(None, 3, None), (-5, 3, 3), (0, 3, 3), (1, 3, 3), (2, 3, None), (5, 6, None), (99, 8, None)],
)
async def test_a_reading_begins_after_the_seq_it_names_and_tells_of_a_gap(
    world: World, sessions: Sessions, session: Session, after: int | None, first: int, gap: int | None
) -> None:
    channel = session.channel(Io.OUT)
    await fill(world, channel, 7)
    await world.log.trim(channel, 3, guard=UNTOUCHED)
    async with sessions.hub, sessions.channels.subscribe(channel, after) as reading:
        assert reading.gap == gap
        assert reading.next_seq == 8
        await fill(world, channel, 1)
        got = await drain(reading, 9 - first)
        assert [record.seq for record in got] == list(range(first, 9))
        assert reading.is_caught_up


async def test_a_channel_without_a_session_can_be_read(world: World, sessions: Sessions) -> None:
    channel = Channel(HOME.id, AddressingKey("nobody yet"), Io.OUT)
    async with sessions.hub, sessions.channels.subscribe(channel) as reading:
        assert await reading.next(0.1) is None
        await fill(world, channel, 1)
        assert len(await drain(reading, 1)) == 1


@pytest.mark.parametrize("commands", [0, 1, 40])
async def test_a_channel_is_settled_if_its_last_visible_record_completes_a_turn(
    world: World, sessions: Sessions, session: Session, commands: int
) -> None:
    channel = session.channel(Io.OUT)
    async with sessions.hub:
        for settle, expected in ((False, False), (True, True)):
            await fill(world, channel, 2)
            if settle:
                await complete(world, channel)
            for _ in range(commands):
                await world.log.trim(channel, 0, guard=UNTOUCHED)
            async with sessions.channels.subscribe(channel, peek_settled=True) as reading:
                assert reading.settled is expected
            async with sessions.channels.subscribe(channel) as reading:
                assert not reading.settled, "nobody asked"


async def test_an_empty_channel_is_not_settled(sessions: Sessions, session: Session) -> None:
    async with sessions.hub, sessions.channels.subscribe(session.channel(Io.OUT), peek_settled=True) as reading:
        assert not reading.settled


@pytest.mark.parametrize("after", [None, 0, 2])
async def test_a_settled_reading_ends_with_its_tail(
    world: World, sessions: Sessions, session: Session, after: int | None
) -> None:
    channel = session.channel(Io.OUT)
    await fill(world, channel, 2)
    await complete(world, channel)
    async with sessions.hub, sessions.channels.subscribe(channel, after, peek_settled=True) as reading:
        got = []
        while (batch := await reading.next()) is not None:
            got += [record.seq for record in batch.records]
        assert got == list(range(0 if after is None else after + 1, 3))
        assert reading.finished


class Late(Tapped):
    """A log whose followers hear everything a second late."""

    @asynccontextmanager
    async def _follow(self, channel: Channel, start: int) -> AsyncGenerator[AsyncIterator[Batch]]:
        async with self._inner.follow(channel, start) as batches:
            yield _LateBatches(batches)


@attrs.define
class _LateBatches(AsyncIterator[Batch]):
    inner: AsyncIterator[Batch]

    async def __anext__(self) -> Batch:
        batch = await anext(self.inner)
        await anyio.sleep(1)
        return batch


async def test_a_settled_reading_ends_with_its_tail_also_where_followers_lag(world: World) -> None:
    sessions = world.sessions(log=Late(world.log, Tap()))
    session = (await sessions.sessions.create(HOME, spec())).session
    channel = session.channel(Io.OUT)
    async with sessions.hub, sessions.channels.subscribe(channel):
        await anyio.sleep(0.1)
        await fill(world, channel, 2)
        await complete(world, channel)
        async with sessions.channels.subscribe(channel, peek_settled=True) as reading:
            assert reading.settled
            assert [record.seq for record in await drain(reading, 3)] == [0, 1, 2]
            assert await reading.next() is None


# --- Trimming, and what is large ------------------------------------------------------------------


async def test_a_trim_needs_the_epoch_and_an_open_session(world: World, sessions: Sessions, session: Session) -> None:
    channel = session.channel(Io.OUT)
    await fill(world, channel, 3)
    await world.log.set_guard(channel, Guard.live(1), expect=UNTOUCHED)
    assert await sessions.channels.trim(session, 2, epoch=1) == 3
    assert (await world.log.tail(channel)).first_seq == 2
    with pytest.raises(StaleRunError):
        await sessions.channels.trim(session, 3, epoch=2)
    await sessions.sessions.close(HOME.id, NAME)
    with pytest.raises(SessionClosedError):
        await sessions.channels.trim(session, 3, epoch=1)


async def test_a_drain_with_a_limit_gets_that_many_large_records(sessions: Sessions, session: Session) -> None:
    for number in range(12):
        await sessions.channels.append_text(session, Io.IN, f"{number}".ljust(300_000))
    channel = session.channel(Io.IN)
    assert [record.seq for record in (await sessions.channels.records(channel, 0, 10)).records] == list(range(10))
    assert len((await sessions.channels.records(channel, 0)).records) == 12
