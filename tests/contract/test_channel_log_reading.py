"""What every channel log guarantees to those who read: reading, trimming and following."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from contract.logs import ALL, LIVE, OUT, START_MS, bodies_of, guard_with, put, seqs_of, stored
from contract.makers import SECOND, Call, at_once, make_channel, record, records
from sessions_core.domain.channel import (
    MAX_RECORD_BYTES,
    Appended,
    Batch,
    Channel,
    Record,
    RecordKind,
    trim_command,
)
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.errors import GuardMismatchError
from sessions_core.ports.channel_log import READ_BYTES, ChannelLog
from sessions_core.testing import ManualClock

# --- read ---


@pytest.mark.parametrize("start", [0, 1, 4, 5, 6, 2**40])
@pytest.mark.parametrize("limit", [0, 1, 3, 5, 1000])
async def test_a_read_gives_records_from_its_start_on_up_to_its_limit(
    channel_log: ChannelLog, clock: ManualClock, start: int, limit: int
) -> None:
    await put(channel_log, OUT, *"abcd")
    clock.advance(SECOND)
    await put(channel_log, OUT, "e")
    batch = await channel_log.read(OUT, start, limit)
    assert seqs_of(batch.records) == list(range(5))[start:][:limit]
    assert bodies_of(batch.records) == list("abcde")[start:][:limit]
    assert (batch.next_seq, batch.timestamp) == (5, START_MS + 1000)


@pytest.mark.parametrize("before", [0, 1, 4, 5, 6, 2**40])
@pytest.mark.parametrize("limit", [0, 1, 3, 5, 1000])
async def test_reading_back_gives_the_newest_records_below_a_seq(
    channel_log: ChannelLog, before: int, limit: int
) -> None:
    await put(channel_log, OUT, *"abcde")
    found = await channel_log.read_back(OUT, before, limit)
    assert seqs_of(found) == list(range(5))[:before][::-1][:limit]
    assert bodies_of(found) == list("abcde")[:before][::-1][:limit]


# --- the size of an answer ---

LARGE = READ_BYTES // 4 + 1


async def put_large(log: ChannelLog, *sizes: int) -> None:
    for size in sizes:
        await log.append(OUT, [record(b"x" * size)], guard=UNTOUCHED)


def weight_of(found: Sequence[Record]) -> int:
    return sum(len(record.body) for record in found)


async def test_a_read_ends_early_once_its_bodies_are_large_enough(channel_log: ChannelLog) -> None:
    await put_large(channel_log, *[LARGE] * 12)
    seen: list[int] = []
    while (batch := await channel_log.read(OUT, len(seen), 1000)).records:
        assert weight_of(batch.records) <= READ_BYTES + LARGE
        assert (batch.next_seq, batch.timestamp) == (12, START_MS)
        seen += seqs_of(batch.records)
    assert seen == list(range(12))


async def test_reading_back_ends_early_once_its_bodies_are_large_enough(channel_log: ChannelLog) -> None:
    await put_large(channel_log, *[LARGE] * 12)
    before = 12
    while found := await channel_log.read_back(OUT, before, 1000):
        assert weight_of(found) <= READ_BYTES + LARGE
        assert seqs_of(found) == list(range(found[-1].seq, before))[::-1]
        before = found[-1].seq
    assert before == 0


async def test_the_first_record_is_read_however_large_it_is(channel_log: ChannelLog, any_record: None) -> None:
    await put_large(channel_log, 1, 2 * READ_BYTES, 2 * READ_BYTES, 1)
    assert seqs_of((await channel_log.read(OUT, 1, 1000)).records) == [1]
    assert seqs_of(await channel_log.read_back(OUT, 3, 1000)) == [2]


async def test_records_of_the_largest_size_are_read_one_after_another(channel_log: ChannelLog) -> None:
    await put_large(channel_log, 1, *[MAX_RECORD_BYTES - 64] * 4, 1)
    seen: list[int] = []
    while (batch := await channel_log.read(OUT, len(seen), 1000)).records:
        seen += seqs_of(batch.records)
    assert seen == list(range(6))
    before = 6
    while found := await channel_log.read_back(OUT, before, 1000):
        assert seqs_of(found) == list(range(before - 1, before - 1 - len(found), -1))
        before = found[-1].seq
    assert before == 0


async def test_more_small_records_than_any_page_are_read_at_once(channel_log: ChannelLog) -> None:
    for _ in range(5):
        await channel_log.append(OUT, records(500), guard=UNTOUCHED)
    assert seqs_of((await channel_log.read(OUT, 10, 2200)).records) == list(range(10, 2210))
    assert seqs_of(await channel_log.read_back(OUT, 2400, 2200)) == list(range(2399, 199, -1))


async def test_an_answer_that_is_not_large_is_cut_by_its_limit_alone(channel_log: ChannelLog) -> None:
    await put_large(channel_log, *[READ_BYTES // 10] * 6)
    assert seqs_of((await channel_log.read(OUT, 0, 5)).records) == [0, 1, 2, 3, 4]
    assert seqs_of(await channel_log.read_back(OUT, 6, 5)) == [5, 4, 3, 2, 1]


async def test_a_follower_gets_large_records_in_small_batches(channel_log: ChannelLog) -> None:
    await put_large(channel_log, *[LARGE] * 12)
    seen: list[int] = []
    async with channel_log.follow(OUT, 0) as batches:
        while len(seen) < 12:
            batch = await anext(batches)
            assert weight_of(batch.records) <= READ_BYTES + LARGE
            seen += seqs_of(batch.records)
    assert seen == list(range(12))


# --- trim ---


async def test_a_trim_appends_its_command(channel_log: ChannelLog) -> None:
    await put(channel_log, OUT, "a", "b")
    assert await channel_log.trim(OUT, 1, guard=UNTOUCHED) == 2
    (command,) = await channel_log.read_back(OUT, 3, 1)
    expected = trim_command(1)
    assert (command.seq, command.body, command.headers) == (2, expected.body, expected.headers)
    assert command.kind is RecordKind.COMMAND


@pytest.mark.parametrize("first_kept", [0, 3, 10, 11, 2**40])
async def test_a_trim_keeps_its_own_command_and_everything_from_the_first_kept_on(
    channel_log: ChannelLog, first_kept: int
) -> None:
    await put(channel_log, OUT, *"abcdefghij")
    command = await channel_log.trim(OUT, first_kept, guard=UNTOUCHED)
    await put(channel_log, OUT, "after")
    surely_kept = range(min(first_kept, command), 12)
    tail = await channel_log.tail(OUT)
    assert tail.next_seq == 12
    assert tail.first_seq <= surely_kept[0]
    found = await channel_log.read(OUT, surely_kept[0], ALL)
    assert seqs_of(found.records) == list(surely_kept)
    assert seqs_of(await channel_log.read_back(OUT, 12, len(surely_kept))) == list(reversed(surely_kept))


async def test_what_is_kept_begins_at_the_first_seq_of_the_tail(channel_log: ChannelLog) -> None:
    await put(channel_log, OUT, *"abcdefghij")
    await channel_log.trim(OUT, 6, guard=UNTOUCHED)
    first_seq = (await channel_log.tail(OUT)).first_seq
    found = seqs_of((await channel_log.read(OUT, 0, ALL)).records)
    assert found == list(range(found[0], 11))
    assert first_seq <= found[0] <= 6


async def test_a_trim_of_an_empty_channel_is_its_first_record(channel_log: ChannelLog) -> None:
    assert await channel_log.trim(OUT, 5, guard=UNTOUCHED) == 0
    assert seqs_of((await channel_log.read(OUT, 0, 10)).records) == [0]


async def test_a_trim_under_another_guard_stores_nothing(channel_log: ChannelLog, guard_seqs: int) -> None:
    await put(channel_log, OUT, "a", "b")
    await guard_with(channel_log, LIVE)
    with pytest.raises(GuardMismatchError) as caught:
        await channel_log.trim(OUT, 1, guard=UNTOUCHED)
    assert caught.value.actual == LIVE
    assert await stored(channel_log) == ["a", "b"]
    assert (await channel_log.tail(OUT)).next_seq == 2 + guard_seqs


async def test_seqs_are_not_used_again_after_a_trim(channel_log: ChannelLog) -> None:
    await put(channel_log, OUT, "a", "b")
    await channel_log.trim(OUT, 2, guard=UNTOUCHED)
    assert await put(channel_log, OUT, "c") == [Appended(3)]


async def test_an_earlier_first_kept_brings_nothing_back_and_takes_nothing_more(channel_log: ChannelLog) -> None:
    await put(channel_log, OUT, *"abcdefghij")
    await channel_log.trim(OUT, 8, guard=UNTOUCHED)
    first_seq = (await channel_log.tail(OUT)).first_seq
    await channel_log.trim(OUT, 2, guard=UNTOUCHED)
    assert (await channel_log.tail(OUT)).first_seq >= first_seq
    assert seqs_of((await channel_log.read(OUT, 8, ALL)).records) == [8, 9, 10, 11]


async def test_a_trim_tells_the_tail_its_time(channel_log: ChannelLog, clock: ManualClock) -> None:
    await put(channel_log, OUT, "a")
    clock.advance(SECOND)
    await channel_log.trim(OUT, 1, guard=UNTOUCHED)
    assert (await channel_log.tail(OUT)).timestamp == START_MS + 1000


# --- follow ---


async def follow_until(log: ChannelLog, start: int, last: int, channel: Channel = OUT) -> list[Record]:
    """Follow from *start* until the record *last* has come; check what must hold for every batch."""
    found: list[Record] = []
    with anyio.fail_after(20):
        async with log.follow(channel, start) as batches:
            async for batch in batches:
                check_batch(batch, found)
                found.extend(batch.records)
                if found[-1].seq >= last:
                    break
    return found


def check_batch(batch: Batch, before: Sequence[Record]) -> None:
    assert batch.records
    assert batch.next_seq > batch.records[-1].seq
    assert batch.timestamp >= batch.records[-1].timestamp
    seqs = seqs_of([*before, *batch.records])
    assert seqs == sorted(set(seqs)), "repeated, or out of order"


@pytest.mark.parametrize("start", range(5))
async def test_a_follower_that_starts_at_a_seq_sees_it_and_all_after(channel_log: ChannelLog, start: int) -> None:
    await put(channel_log, OUT, *"abcde")
    found = await follow_until(channel_log, start, 4)
    assert bodies_of(found) == list("abcde")[start:]
    assert found == list((await channel_log.read(OUT, start, 10)).records)


async def test_a_follower_sees_what_comes_after_it_began(channel_log: ChannelLog) -> None:
    await put(channel_log, OUT, "a")
    with anyio.fail_after(20):
        async with channel_log.follow(OUT, 0) as batches:
            for expected in "abcdef":
                batch = await anext(batches)
                assert bodies_of(batch.records) == [expected]
                await put(channel_log, OUT, chr(ord(expected) + 1))


async def test_a_follower_of_an_empty_channel_waits_for_its_first_record(channel_log: ChannelLog) -> None:
    found: list[Record] = []

    async def follow() -> None:
        found.extend(await follow_until(channel_log, 0, 1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        assert found == []
        await put(channel_log, OUT, "a", "b")
    assert bodies_of(found) == ["a", "b"]


async def test_a_follower_beyond_the_tail_waits_for_that_very_record(channel_log: ChannelLog) -> None:
    await put(channel_log, OUT, "a")
    found: list[Record] = []

    async def follow() -> None:
        found.extend(await follow_until(channel_log, 4, 5))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        await put(channel_log, OUT, "b", "c")
        await anyio.wait_all_tasks_blocked()
        await put(channel_log, OUT, "d", "e", "f")
    assert bodies_of(found) == ["e", "f"]


async def test_followers_see_no_gap_and_no_repeat_beside_200_appends(channel_log: ChannelLog) -> None:
    await put(channel_log, OUT, *"abcde")
    seen: list[list[Record]] = []

    async def write(writer: int) -> None:
        for number in range(50):
            await put(channel_log, OUT, f"{writer}.{number}")

    async def follow(start: int, pause: int) -> None:
        for _ in range(pause):
            await checkpoint()
        seen.append(await follow_until(channel_log, start, 204))

    followers = [partial(follow, start, pause) for start in (0, 3, 5, 7, 100) for pause in (0, 5, 50)]
    await at_once([*followers, *(partial(write, writer) for writer in range(4))])
    everything = list((await channel_log.read(OUT, 0, ALL)).records)
    assert len(everything) == 205
    assert len(seen) == len(followers)
    assert all(found == everything[found[0].seq :] for found in seen)
    assert sorted(found[0].seq for found in seen) == sorted(3 * [0, 3, 5, 7, 100])


async def test_a_follower_that_opens_beside_an_append_sees_it_once(channel_log: ChannelLog) -> None:
    async def write(pause: int) -> None:
        for body in "ab":
            for _ in range(pause):
                await checkpoint()
            await put(channel_log, OUT, body)

    for attempt in range(60):
        tail = 2 * attempt
        calls: list[Call] = [partial(follow_until, channel_log, tail, tail + 1), partial(write, attempt % 12)]
        found, _ = await at_once(calls)
        assert seqs_of(found) == [tail, tail + 1]


async def test_a_record_that_comes_while_a_follower_catches_up_is_not_missed(channel_log: ChannelLog) -> None:
    await channel_log.append(OUT, [record(b"x" * 100_000)] * 8, guard=UNTOUCHED)

    async def follow(pause: int, last: int) -> None:
        for _ in range(pause):
            await checkpoint()
        assert len(await follow_until(channel_log, 0, last)) == last + 1

    for attempt in range(40):
        calls: list[Call] = [partial(put, channel_log, OUT, "a"), partial(follow, 2 * attempt, 8 + attempt)]
        await at_once(calls)


async def test_a_slow_follower_misses_nothing(channel_log: ChannelLog) -> None:
    found: list[Record] = []
    with anyio.fail_after(20):
        async with channel_log.follow(OUT, 0) as batches:
            for number in range(30):
                await channel_log.append(OUT, [record(b"x" * 100_000), record(f"{number}")], guard=UNTOUCHED)
                if number % 10 == 0:
                    found.extend((await anext(batches)).records)
            while len(found) < 60:
                batch = await anext(batches)
                check_batch(batch, found)
                found.extend(batch.records)
    assert seqs_of(found) == list(range(60))


async def test_a_follower_skips_what_was_trimmed_before_it_came(channel_log: ChannelLog) -> None:
    await put(channel_log, OUT, *"abcdefghij")
    await channel_log.trim(OUT, 6, guard=UNTOUCHED)
    await put(channel_log, OUT, "k")
    found: list[Record] = []
    with anyio.fail_after(20):
        async with channel_log.follow(OUT, 0) as batches:
            while not found or found[-1].seq < 14:
                batch = await anext(batches)
                check_batch(batch, found)
                found.extend(batch.records)
                await put(channel_log, OUT, "l", "m", "n")
    first = found[0].seq
    assert first <= 6
    assert seqs_of(found) == list(range(first, first + len(found)))


async def test_a_follower_goes_on_over_a_trim(channel_log: ChannelLog) -> None:
    await put(channel_log, OUT, *"abcdefghij")
    found: list[Record] = []
    with anyio.fail_after(20):
        async with channel_log.follow(OUT, 0) as batches:
            found.extend((await anext(batches)).records)
            await put(channel_log, OUT, *"klmnopqrst")
            await channel_log.trim(OUT, 15, guard=UNTOUCHED)
            await put(channel_log, OUT, "u")
            while found[-1].seq < 21:
                batch = await anext(batches)
                check_batch(batch, found)
                found.extend(batch.records)
    assert [seq for seq in seqs_of(found) if seq >= 15] == list(range(15, 22))


async def test_a_follower_sees_only_its_channel(channel_log: ChannelLog) -> None:
    other = make_channel("other")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(put, channel_log, other, "x", "y"))
        tasks.start_soon(partial(put, channel_log, OUT, "a", "b"))
        found = await follow_until(channel_log, 0, 1)
    assert bodies_of(found) == ["a", "b"]


async def test_a_follower_sees_nothing_of_duplicates(channel_log: ChannelLog) -> None:
    with anyio.fail_after(20):
        async with channel_log.follow(OUT, 0) as batches:
            await channel_log.append(OUT, [record("a", "p")], guard=UNTOUCHED)
            assert bodies_of((await anext(batches)).records) == ["a"]
            await channel_log.append(OUT, [record("again", "p")], guard=UNTOUCHED)
            await channel_log.append(OUT, [record("b", "q"), record("again", "p")], guard=UNTOUCHED)
            assert bodies_of((await anext(batches)).records) == ["b"]
            await put(channel_log, OUT, "c")
            assert bodies_of((await anext(batches)).records) == ["c"]


async def test_a_cancelled_follower_leaves_the_others_alone(channel_log: ChannelLog) -> None:
    found: list[Record] = []

    async def follow() -> None:
        found.extend(await follow_until(channel_log, 0, 1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        async with anyio.create_task_group() as doomed:
            doomed.start_soon(partial(follow_until, channel_log, 0, 1))
            await anyio.wait_all_tasks_blocked()
            doomed.cancel_scope.cancel()
        await put(channel_log, OUT, "a", "b")
    assert bodies_of(found) == ["a", "b"]
