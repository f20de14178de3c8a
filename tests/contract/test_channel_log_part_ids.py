"""What every channel log guarantees to those who write again: a record whose part id is known is not stored twice."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from contract.logs import LIVE, OUT, WINDOW, WINDOW_RECORDS, guard_with, put, stored
from contract.makers import SECOND, at_once, record, records
from sessions_core.domain.channel import Appended
from sessions_core.domain.guard import SEALED, UNTOUCHED, Guard
from sessions_core.errors import GuardMismatchError
from sessions_core.ports.channel_log import ChannelLog
from sessions_core.testing import ManualClock


async def test_the_same_part_id_again_is_answered_with_its_first_seq(channel_log: ChannelLog) -> None:
    await channel_log.append(OUT, [record("a", "part")], guard=UNTOUCHED)
    again = await channel_log.append(OUT, [record("other body", "part")], guard=UNTOUCHED)
    assert again == [Appended(0, is_new=False)]
    assert await stored(channel_log) == ["a"]


async def test_records_without_part_ids_are_never_the_same(channel_log: ChannelLog) -> None:
    await put(channel_log, OUT, "a", "a")
    await put(channel_log, OUT, "a")
    assert await stored(channel_log) == ["a", "a", "a"]


async def test_a_part_id_twice_in_one_append_is_one_record(channel_log: ChannelLog) -> None:
    batch = [record("a", "p"), record("b", "q"), record("c", "p"), record("d"), record("e", "q")]
    appended = await channel_log.append(OUT, batch, guard=UNTOUCHED)
    assert appended == [Appended(0), Appended(1), Appended(0, False), Appended(2), Appended(1, False)]
    assert await stored(channel_log) == ["a", "b", "d"]


async def test_new_records_beside_known_ones_get_consecutive_seqs(channel_log: ChannelLog) -> None:
    await channel_log.append(OUT, [record("a", "p"), record("b", "q")], guard=UNTOUCHED)
    batch = [record("c"), record("b again", "q"), record("d", "r"), record("a again", "p"), record("e")]
    appended = await channel_log.append(OUT, batch, guard=UNTOUCHED)
    assert appended == [Appended(2), Appended(1, False), Appended(3), Appended(0, False), Appended(4)]
    assert await stored(channel_log) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("guard", [LIVE, SEALED], ids=str)
async def test_if_all_records_are_known_the_guard_does_not_matter(channel_log: ChannelLog, guard: Guard) -> None:
    batch = [record("a", "p"), record("b", "q")]
    await channel_log.append(OUT, batch, guard=UNTOUCHED)
    await guard_with(channel_log, guard)
    again = await channel_log.append(OUT, batch, guard=UNTOUCHED)
    assert again == [Appended(0, False), Appended(1, False)]
    assert await stored(channel_log) == ["a", "b"]


async def test_if_one_record_is_new_the_guard_matters_for_all(channel_log: ChannelLog) -> None:
    await channel_log.append(OUT, [record("a", "p")], guard=UNTOUCHED)
    await guard_with(channel_log, LIVE)
    for batch in ([record("b"), record("a", "p")], [record("a", "p"), record("b", "q")]):
        with pytest.raises(GuardMismatchError):
            await channel_log.append(OUT, batch, guard=UNTOUCHED)
    assert await stored(channel_log) == ["a"]


async def test_a_refused_part_id_is_not_known(channel_log: ChannelLog, guard_seqs: int) -> None:
    await guard_with(channel_log, LIVE)
    with pytest.raises(GuardMismatchError):
        await channel_log.append(OUT, [record("a", "p")], guard=UNTOUCHED)
    assert await channel_log.append(OUT, [record("a", "p")], guard=LIVE) == [Appended(guard_seqs)]


async def test_known_records_leave_the_tail_as_it_is(channel_log: ChannelLog, clock: ManualClock) -> None:
    await channel_log.append(OUT, [record("a", "p")], guard=UNTOUCHED)
    tail = await channel_log.tail(OUT)
    clock.advance(SECOND)
    await channel_log.append(OUT, [record("a", "p")], guard=UNTOUCHED)
    assert await channel_log.tail(OUT) == tail


async def test_of_50_concurrent_appends_with_one_part_id_one_is_stored(channel_log: ChannelLog) -> None:
    appended = await at_once(
        [partial(channel_log.append, OUT, [record(f"{n}", "part")], guard=UNTOUCHED) for n in range(50)]
    )
    places = [places[0] for places in appended]
    assert sum(place.is_new for place in places) == 1
    assert {place.seq for place in places} == {0}
    assert len(await stored(channel_log)) == 1


@pytest.mark.parametrize("part", ["", "ä", "P", "p ", "\x00", "\ud800", "p" * 5000, "0", "1"], ids=ascii)
async def test_part_ids_may_be_any_text(channel_log: ChannelLog, part: str) -> None:
    await channel_log.append(OUT, [record("a", "p")], guard=UNTOUCHED)
    assert await channel_log.append(OUT, [record("b", part)], guard=UNTOUCHED) == [Appended(1)]
    assert await channel_log.append(OUT, [record("c", part)], guard=UNTOUCHED) == [Appended(1, is_new=False)]


async def test_a_part_id_is_known_while_its_record_is_among_the_last_1000(
    channel_log: ChannelLog, clock: ManualClock
) -> None:
    await channel_log.append(OUT, [record("a", "part")], guard=UNTOUCHED)
    await channel_log.append(OUT, records(WINDOW_RECORDS - 1), guard=UNTOUCHED)
    clock.advance(timedelta(days=1))
    again = await channel_log.append(OUT, [record("a", "part")], guard=UNTOUCHED)
    assert again == [Appended(0, is_new=False)]


async def test_a_part_id_is_known_for_15_minutes_however_many_records_come(
    channel_log: ChannelLog, clock: ManualClock
) -> None:
    await channel_log.append(OUT, [record("a", "part")], guard=UNTOUCHED)
    for _ in range(3):
        await channel_log.append(OUT, [record("x", f"{n}") for n in range(WINDOW_RECORDS)], guard=UNTOUCHED)
        await channel_log.append(OUT, records(WINDOW_RECORDS), guard=UNTOUCHED)
    clock.advance(WINDOW)
    again = await channel_log.append(OUT, [record("a", "part")], guard=UNTOUCHED)
    assert again == [Appended(0, is_new=False)]


async def test_a_part_id_is_forgotten_some_time_after_both_windows(channel_log: ChannelLog, clock: ManualClock) -> None:
    await channel_log.append(OUT, [record("a", "part")], guard=UNTOUCHED)
    for _ in range(3):
        clock.advance(WINDOW)
        await channel_log.append(OUT, records(WINDOW_RECORDS), guard=UNTOUCHED)
    place = Appended(3 * WINDOW_RECORDS + 1)
    assert await channel_log.append(OUT, [record("b", "part")], guard=UNTOUCHED) == [place]
    again = await channel_log.append(OUT, [record("c", "part")], guard=UNTOUCHED)
    assert again == [Appended(place.seq, is_new=False)]


async def test_part_ids_are_known_after_their_records_were_trimmed(channel_log: ChannelLog) -> None:
    await channel_log.append(OUT, [record("a", "part"), record("b")], guard=UNTOUCHED)
    await channel_log.trim(OUT, 2, guard=UNTOUCHED)
    again = await channel_log.append(OUT, [record("a", "part")], guard=UNTOUCHED)
    assert again == [Appended(0, is_new=False)]


async def test_a_cancelled_append_can_be_repeated_with_its_part_id(channel_log: ChannelLog) -> None:
    for number in range(20):
        again = partial(channel_log.append, OUT, [record(f"{number}", f"{number}")], guard=UNTOUCHED)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(again)
            for _ in range(number % 5):
                await checkpoint()
            tasks.cancel_scope.cancel()
        await again()
    assert await stored(channel_log) == [f"{number}" for number in range(20)]
