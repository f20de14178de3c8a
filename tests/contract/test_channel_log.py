"""What every channel log guarantees to those who write: order and guards."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from itertools import pairwise

import pytest
from anyio.lowlevel import checkpoint

from contract.logs import ALL, LIVE, OUT, START_MS, bodies_of, guard_with, put, seqs_of, stored
from contract.makers import MILLISECOND, SECOND, at_once, make_channel, record
from sessions_core.domain.channel import Appended, Channel, Headers, Io, NewRecord, Record, RecordKind, Tail
from sessions_core.domain.guard import SEALED, UNTOUCHED, Guard
from sessions_core.errors import GuardMismatchError, TailMismatchError
from sessions_core.ports.channel_log import ChannelLog
from sessions_core.testing import ManualClock

# --- append ---


async def test_a_channel_that_nobody_has_written_to_is_empty(channel_log: ChannelLog) -> None:
    assert await channel_log.tail(OUT) == Tail(next_seq=0, first_seq=0, timestamp=0, guard=UNTOUCHED)
    batch = await channel_log.read(OUT, 0, 10)
    assert (batch.records, batch.next_seq, batch.timestamp) == ((), 0, 0)
    assert await channel_log.read_back(OUT, 10, 10) == []


async def test_seqs_start_at_0_and_rise_by_one(channel_log: ChannelLog) -> None:
    assert await put(channel_log, OUT, "a") == [Appended(0)]
    assert await put(channel_log, OUT, "b", "c") == [Appended(1), Appended(2)]
    assert await stored(channel_log) == ["a", "b", "c"]
    assert seqs_of((await channel_log.read(OUT, 0, 10)).records) == [0, 1, 2]


async def test_appending_nothing_changes_nothing(channel_log: ChannelLog) -> None:
    assert await channel_log.append(OUT, [], guard=UNTOUCHED) == []
    assert await channel_log.append(OUT, [], guard=LIVE) == []
    assert await channel_log.tail(OUT) == Tail()


@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff\xfe", '{"ä":"\U0001f980"}'.encode(), b"x" * 1_000_000], ids=len)
@pytest.mark.parametrize("headers", [(), (("a", "1"), ("A", ""), ("a", "2"), ("ü", "\U0001f980\x00"))], ids=str)
@pytest.mark.parametrize("part", [None, "part"])
async def test_a_record_comes_back_byte_for_byte(
    channel_log: ChannelLog, body: bytes, headers: Headers, part: str | None
) -> None:
    await channel_log.append(OUT, [record(body, part, headers)], guard=UNTOUCHED)
    (found,) = (await channel_log.read(OUT, 0, 1)).records
    assert found == Record(0, START_MS, body, headers)


@pytest.mark.parametrize("headers", [(("", "trim"),), (("", ""), ("", "x")), (("a", "b"), ("", "x"))], ids=str)
async def test_a_record_that_looks_like_a_command_comes_back_byte_for_byte(
    channel_log: ChannelLog, any_record: None, headers: Headers
) -> None:
    body = b"no command"
    await channel_log.append(OUT, [NewRecord(body, headers)], guard=UNTOUCHED)
    (found,) = (await channel_log.read(OUT, 0, 1)).records
    assert found == Record(0, START_MS, body, headers)


# --- append at a tail ---


async def test_an_append_that_asks_for_the_tail_is_stored_there_and_nowhere_else(channel_log: ChannelLog) -> None:
    assert await channel_log.append(OUT, [record("a")], guard=UNTOUCHED, if_tail=0) == [Appended(0)]
    for wrong in (0, 2):
        with pytest.raises(TailMismatchError) as refusal:
            await channel_log.append(OUT, [record("b"), record("c")], guard=UNTOUCHED, if_tail=wrong)
        assert refusal.value.actual == 1
    assert await stored(channel_log) == ["a"]
    assert await channel_log.append(OUT, [record("b"), record("c")], guard=UNTOUCHED, if_tail=1) == [
        Appended(1),
        Appended(2),
    ]


async def test_a_wrong_guard_is_told_before_a_wrong_tail(channel_log: ChannelLog) -> None:
    await put(channel_log, OUT, "a")
    for tail in (0, 1):
        with pytest.raises(GuardMismatchError) as refusal:
            await channel_log.append(OUT, [record("b")], guard=LIVE, if_tail=tail)
        assert refusal.value.actual == UNTOUCHED
    assert await stored(channel_log) == ["a"]


async def test_a_record_that_is_there_is_told_whatever_tail_is_asked_for(channel_log: ChannelLog) -> None:
    again = record("a", "part")
    await channel_log.append(OUT, [again], guard=UNTOUCHED)
    assert await channel_log.append(OUT, [again], guard=UNTOUCHED, if_tail=7) == [Appended(0, is_new=False)]
    with pytest.raises(TailMismatchError):
        await channel_log.append(OUT, [again, record("b")], guard=UNTOUCHED, if_tail=7)
    assert await channel_log.append(OUT, [again, record("b")], guard=UNTOUCHED, if_tail=1) == [
        Appended(0, is_new=False),
        Appended(1),
    ]


async def test_of_appends_at_once_that_ask_for_one_tail_one_is_stored(channel_log: ChannelLog) -> None:
    async def attempt(number: int) -> bool:
        try:
            await channel_log.append(OUT, [record(str(number))], guard=UNTOUCHED, if_tail=0)
        except TailMismatchError:
            return False
        return True

    outcomes = await at_once([partial(attempt, number) for number in range(20)])
    assert sum(outcomes) == 1
    assert await stored(channel_log) == [str(outcomes.index(True))]


async def test_appends_with_and_without_a_tail_do_not_disturb_each_other(channel_log: ChannelLog) -> None:
    async def attempt(number: int) -> int:
        try:
            tail = None if number % 2 else number // 2
            return (await channel_log.append(OUT, [record(str(number))], guard=UNTOUCHED, if_tail=tail))[0].seq
        except TailMismatchError:
            return -1

    seqs = await at_once([partial(attempt, number) for number in range(40)])
    places = {seq: str(number) for number, seq in enumerate(seqs) if seq >= 0}
    assert await stored(channel_log) == [places[seq] for seq in sorted(places)]
    assert all(seq >= 0 for number, seq in enumerate(seqs) if number % 2)
    assert all(seq == number // 2 for number, seq in enumerate(seqs) if seq >= 0 and number % 2 == 0)


async def test_the_first_append_that_asks_for_the_tail_is_first_or_refused(channel_log: ChannelLog) -> None:
    """Also where appending makes a channel that was not there."""

    async def attempt(channel: Channel) -> int | None:
        try:
            return (await channel_log.append(channel, [record("mine")], guard=UNTOUCHED, if_tail=0))[0].seq
        except TailMismatchError:
            return None

    channels = [make_channel(f"{number}") for number in range(20)]
    calls = [
        call
        for channel in channels
        for call in (partial(put, channel_log, channel, "other"), partial(attempt, channel))
    ]
    seqs = (await at_once(calls))[1::2]
    assert set(seqs) <= {0, None}
    for channel, seq in zip(channels, seqs, strict=True):
        assert await stored(channel_log, channel) == (["other"] if seq is None else ["mine", "other"])


async def test_concurrent_batches_are_not_mixed(channel_log: ChannelLog) -> None:
    batches = [[f"{number}.{part}" for part in range(5)] for number in range(40)]
    appended = await at_once([partial(put, channel_log, OUT, *batch) for batch in batches])
    found = await stored(channel_log)
    assert len(found) == 200
    for batch, places in zip(batches, appended, strict=True):
        first = places[0].seq
        assert [place.seq for place in places] == list(range(first, first + 5))
        assert found[first : first + 5] == batch


async def test_the_records_of_one_append_have_one_arrival_time(channel_log: ChannelLog, clock: ManualClock) -> None:
    clock.advance(1234 * MILLISECOND)
    await put(channel_log, OUT, "a", "b")
    clock.advance(SECOND)
    await put(channel_log, OUT, "c")
    batch = await channel_log.read(OUT, 0, 10)
    assert [found.timestamp - START_MS for found in batch.records] == [1234, 1234, 2234]
    assert batch.timestamp == (await channel_log.tail(OUT)).timestamp == START_MS + 2234


async def test_arrival_times_never_fall_when_the_clock_does(channel_log: ChannelLog, clock: ManualClock) -> None:
    await put(channel_log, OUT, "a")
    clock.advance(timedelta(hours=-1))
    await put(channel_log, OUT, "b")
    assert [found.timestamp for found in (await channel_log.read(OUT, 0, 10)).records] == [START_MS, START_MS]


async def test_what_was_appended_is_seen_by_every_reading_at_once(channel_log: ChannelLog) -> None:
    for number in range(50):
        await put(channel_log, OUT, f"{number}")
        assert (await channel_log.tail(OUT)).next_seq == number + 1
        assert bodies_of(await channel_log.read_back(OUT, number + 1, 1)) == [f"{number}"]
        assert bodies_of((await channel_log.read(OUT, number, 1)).records) == [f"{number}"]


OTHERS = {
    "io": make_channel(io=Io.IN),
    "environment": make_channel(env="env_b"),
    "key": make_channel("KEY"),
    "name": make_channel(name="side"),
    "empty name": make_channel(name=""),
    "key with a space": make_channel("key "),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
async def test_channels_that_differ_in_one_thing_share_nothing(channel_log: ChannelLog, other: Channel) -> None:
    await channel_log.append(OUT, [record("mine", "part"), record("too")], guard=UNTOUCHED)
    await guard_with(channel_log, LIVE)
    assert await channel_log.tail(other) == Tail()
    assert await stored(channel_log, other) == []
    assert await channel_log.append(other, [record("yours", "part")], guard=UNTOUCHED) == [Appended(0)]
    assert await stored(channel_log) == ["mine", "too"]
    assert await stored(channel_log, other) == ["yours"]


async def test_addresses_are_not_glued_together(channel_log: ChannelLog) -> None:
    parts = ("a", "a/b", "b", "a:b", "a\x1fb", "", "ä", "a\u0308", "in", "\x00", "\x00a", "'", "%")
    channels = [make_channel(key, env=env, name=name) for key in parts for env in ("a", "a/b") for name in (None, "b")]
    for number, channel in enumerate(channels):
        await put(channel_log, channel, f"{number}")
    assert [await stored(channel_log, channel) for channel in channels] == [[f"{n}"] for n in range(len(channels))]


# --- guards ---


async def test_an_append_under_another_guard_stores_nothing_and_names_the_guard(
    channel_log: ChannelLog, guard_seqs: int
) -> None:
    await put(channel_log, OUT, "a")
    await guard_with(channel_log, LIVE)
    for wrong in (UNTOUCHED, Guard.live(0), Guard.live(2), Guard.idle(1), SEALED):
        with pytest.raises(GuardMismatchError) as caught:
            await put(channel_log, OUT, "b", "c", guard=wrong)
        assert caught.value.actual == LIVE
    assert await stored(channel_log) == ["a"]
    assert await put(channel_log, OUT, "d", guard=LIVE) == [Appended(1 + guard_seqs)]


async def test_a_guard_change_tells_guard_and_tail_after_the_call(channel_log: ChannelLog, guard_seqs: int) -> None:
    await put(channel_log, OUT, "a", "b")
    change = await channel_log.set_guard(OUT, LIVE, expect=UNTOUCHED)
    assert (change.done, change.actual, change.tail) == (True, LIVE, 2 + guard_seqs)
    change = await channel_log.set_guard(OUT, Guard.live(2), expect=UNTOUCHED)
    assert (change.done, change.actual, change.tail) == (False, LIVE, 2 + guard_seqs)
    assert (await channel_log.tail(OUT)).guard == LIVE


async def test_the_guard_of_an_untouched_channel_can_be_set(channel_log: ChannelLog, guard_seqs: int) -> None:
    await guard_with(channel_log, LIVE)
    assert await channel_log.tail(OUT) == Tail(guard=LIVE, next_seq=guard_seqs, timestamp=START_MS if guard_seqs else 0)
    assert await put(channel_log, OUT, "a", guard=LIVE) == [Appended(guard_seqs)]


async def test_what_a_guard_change_stores_is_no_more_than_commands(channel_log: ChannelLog, guard_seqs: int) -> None:
    await put(channel_log, OUT, "a")
    for old, new in pairwise(RISING):
        await channel_log.set_guard(OUT, new, expect=old)
    found = (await channel_log.read(OUT, 0, ALL)).records
    kinds = [record.kind for record in found]
    assert kinds == [RecordKind.DATA] + [RecordKind.COMMAND] * (len(RISING) - 1) * guard_seqs


RISING = [UNTOUCHED, Guard.live(1), Guard.idle(1), Guard.live(2), Guard.live(999_999_999_999), SEALED]


@pytest.mark.parametrize("old", range(1, len(RISING)), ids=lambda index: str(RISING[index]))
@pytest.mark.parametrize("new", range(len(RISING)), ids=lambda index: str(RISING[index]))
async def test_guards_only_rise(channel_log: ChannelLog, old: int, new: int) -> None:
    await guard_with(channel_log, RISING[old])
    change = await channel_log.set_guard(OUT, RISING[new], expect=RISING[old])
    assert change.done == (new > old)
    assert change.actual == RISING[max(old, new)]
    assert (await channel_log.tail(OUT)).guard == change.actual


async def test_a_guard_change_can_insist_on_the_tail(channel_log: ChannelLog) -> None:
    await put(channel_log, OUT, "a")
    for wrong in (0, 2):
        change = await channel_log.set_guard(OUT, LIVE, expect=UNTOUCHED, if_tail=wrong)
        assert (change.done, change.actual, change.tail) == (False, UNTOUCHED, 1)
    assert (await channel_log.set_guard(OUT, LIVE, expect=UNTOUCHED, if_tail=1)).done


async def test_the_tail_to_insist_on_may_be_0(channel_log: ChannelLog) -> None:
    assert (await channel_log.set_guard(OUT, LIVE, expect=UNTOUCHED, if_tail=0)).done


async def test_a_sealed_channel_still_answers_known_part_ids_but_not_beside_a_new_record(
    channel_log: ChannelLog,
) -> None:
    await channel_log.append(OUT, [record("a", "known")], guard=UNTOUCHED)
    await guard_with(channel_log, SEALED)
    for guard in (UNTOUCHED, LIVE, SEALED):
        again = await channel_log.append(OUT, [record("a", "known")], guard=guard)
        assert again == [Appended(0, is_new=False)]
        with pytest.raises(GuardMismatchError):
            await channel_log.append(OUT, [record("a", "known"), record("b", "new")], guard=guard)
    assert await stored(channel_log) == ["a"]


async def test_a_sealed_channel_takes_no_record_whatever_guard_is_named(channel_log: ChannelLog) -> None:
    await put(channel_log, OUT, "a")
    await guard_with(channel_log, SEALED)
    for guard in (UNTOUCHED, LIVE, SEALED):
        with pytest.raises(GuardMismatchError) as caught:
            await put(channel_log, OUT, "b", guard=guard)
        assert caught.value.actual.is_sealed
        with pytest.raises(GuardMismatchError):
            await channel_log.trim(OUT, 1, guard=guard)
    assert await stored(channel_log) == ["a"]


async def test_of_20_concurrent_guard_changes_one_is_done(channel_log: ChannelLog) -> None:
    changes = await at_once(
        [partial(channel_log.set_guard, OUT, Guard.live(n), expect=UNTOUCHED) for n in range(1, 21)]
    )
    (winner,) = (change for change in changes if change.done)
    assert {change.actual for change in changes} == {winner.actual}


async def test_no_append_slips_in_behind_a_guard_that_insisted_on_the_tail(channel_log: ChannelLog) -> None:
    await guard_with(channel_log, LIVE)
    left_at: list[int] = []

    async def leave() -> None:
        while not left_at:
            tail = (await channel_log.tail(OUT)).next_seq
            change = await channel_log.set_guard(OUT, Guard.idle(1), expect=LIVE, if_tail=tail)
            left_at.extend([change.tail] if change.done else [])

    async def append(number: int) -> None:
        for _ in range(number % 7):
            await checkpoint()
        try:
            await put(channel_log, OUT, f"{number}", guard=LIVE)
        except GuardMismatchError as error:
            assert error.actual == Guard.idle(1)  # noqa: PT017 - both outcomes are fine

    await at_once([partial(append, number) for number in range(15)] + [leave])
    assert left_at == [(await channel_log.tail(OUT)).next_seq]
