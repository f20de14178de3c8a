"""Followers: fed from memory while they keep up, from the disk when they do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anyio
import attrs
import pytest

from sessions_adapters.sqlite import SqliteChannelLog, SqliteConfig, SqliteDatabase, log_reader, open_database
from sessions_core.domain.channel import Batch, Channel, NewRecord
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.testing import ManualClock


async def append(log: SqliteChannelLog, channel: Channel, *numbers: int, size: int = 0) -> None:
    records = [NewRecord(f"{number}".encode().ljust(size)) for number in numbers]
    await log.append(channel, records, guard=UNTOUCHED)


async def next_batch(batches: AsyncIterator[Batch]) -> Batch:
    with anyio.fail_after(5):
        return await anext(batches)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From where the disk is read."""
    starts: list[int] = []
    read = log_reader.read

    def counting(connection: object, channel: Channel, start: int, *rest: int) -> Batch:
        starts.append(start)
        return read(connection, channel, start, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(log_reader, "read", counting)
    return starts


async def test_followers_that_keep_up_share_one_batch_and_read_nothing(
    log: SqliteChannelLog, channel: Channel, reads: list[int]
) -> None:
    await append(log, channel, 0, 1)
    async with log.follow(channel, 0) as one, log.follow(channel, 0) as two:
        assert [r.seq for r in (await next_batch(one)).records] == [0, 1]
        assert [r.seq for r in (await next_batch(two)).records] == [0, 1]
        reads.clear()
        for number in range(2, 20):
            await append(log, channel, number)
            batch = await next_batch(one)
            assert batch is await next_batch(two)
            assert (batch.records[0].seq, batch.next_seq) == (number, number + 1)
        assert not reads


async def test_what_a_follower_gets_is_what_a_reader_gets(
    log: SqliteChannelLog, channel: Channel, clock: ManualClock
) -> None:
    async with log.follow(channel, 0) as batches:
        waiting = asyncio.create_task(next_batch(batches))
        await asyncio.sleep(0.01)
        await log.append(channel, [NewRecord(b"", (("trigger-control", "x"), ("ö", "\x00")))], guard=UNTOUCHED)
        handed = await waiting
        read = await log.read(channel, 0, 9)
        assert (handed.records, handed.next_seq, handed.timestamp) == (read.records, read.next_seq, read.timestamp)


async def test_a_slow_follower_has_a_bounded_buffer_and_misses_nothing(
    config: SqliteConfig, clock: ManualClock, channel: Channel
) -> None:
    async with open_database(attrs.evolve(config, buffered_bytes=20_000), clock=clock) as db:
        log = SqliteChannelLog(db)
        async with log.follow(channel, 0) as batches:
            await append(log, channel, 0)
            await next_batch(batches)
            for number in range(1, 200):
                await append(log, channel, number, size=1000)
            [follower] = db.followers._by_channel[channel]
            assert 0 < len(follower._buffer) < 20
            seqs: list[int] = []
            sizes: list[int] = []
            while len(seqs) < 199:
                batch = await next_batch(batches)
                seqs += [record.seq for record in batch.records]
                sizes.append(sum(len(record.body) for record in batch.records))
            assert seqs == list(range(1, 200))
            assert max(sizes) <= 21_000
            await append(log, channel, 200)
            assert (await next_batch(batches)).records[0].seq == 200


async def test_a_follower_waits_for_a_seq_beyond_the_tail(log: SqliteChannelLog, channel: Channel) -> None:
    async with log.follow(channel, 5) as batches, log.follow(channel, 10**40) as endless:
        never = asyncio.create_task(next_batch(endless))
        waiting = asyncio.create_task(next_batch(batches))
        await asyncio.sleep(0.01)
        await append(log, channel, 0, 1, 2)
        await append(log, channel, 3, 4, 5, 6)
        assert [record.seq for record in (await waiting).records] == [5, 6]
        assert not never.done()
        never.cancel()


async def test_a_cancelled_wait_can_be_repeated(log: SqliteChannelLog, channel: Channel) -> None:
    async with log.follow(channel, 0) as batches:
        for number in range(50):
            with anyio.move_on_after(0 if number % 2 else 0.001):
                await anext(batches)
        await append(log, channel, 0, 1)
        assert [record.seq for record in (await next_batch(batches)).records] == [0, 1]


async def test_no_record_is_lost_or_repeated_while_many_follow_and_trim(
    log: SqliteChannelLog, channel: Channel
) -> None:
    total = 1500

    async def follow(start: int, pace: int) -> list[int]:
        seqs: list[int] = []
        async with log.follow(channel, start) as batches:
            async for batch in batches:
                seqs += [record.seq for record in batch.records]
                if seqs[-1] >= total - 1:
                    return seqs
                for _ in range(pace):
                    await asyncio.sleep(0)
        raise AssertionError

    async def write() -> None:
        for number in range(0, total, 3):
            await append(log, channel, number, number + 1, number + 2)

    followers = [asyncio.create_task(follow(start, pace)) for start in (0, 1, 700) for pace in (0, 3, 40)]
    await write()
    for task in followers:
        seqs = await task
        assert seqs == list(range(seqs[0], total))
    assert [(await task)[0] for task in followers] == [0, 0, 0, 1, 1, 1, 700, 700, 700]


async def test_a_follower_skips_what_was_trimmed(log: SqliteChannelLog, channel: Channel) -> None:
    await append(log, channel, *range(10))
    async with log.follow(channel, 0) as batches:
        await log.trim(channel, 8, guard=UNTOUCHED)
        assert [record.seq for record in (await next_batch(batches)).records] == [8, 9, 10]
        waiting = asyncio.create_task(next_batch(batches))
        await asyncio.sleep(0.01)
        assert await log.trim(channel, 10, guard=UNTOUCHED) == 11
        assert [record.seq for record in (await waiting).records] == [11]


async def test_those_who_leave_are_forgotten(db: SqliteDatabase, log: SqliteChannelLog, channel: Channel) -> None:
    async with log.follow(channel, 0), log.follow(channel, 3):
        assert len(db.followers._by_channel[channel]) == 2
    assert not db.followers._by_channel
