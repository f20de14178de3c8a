"""Many processes on one basin: what each learns from the stream alone. Two basins here know no more of each other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import pytest

from adapters.s2.conftest import config
from contract.logs import OUT, put, stored
from contract.makers import at_once, make_channel, record, records
from sessions_adapters.s2 import S2ChannelLog, S2Config, open_basin
from sessions_core.domain.channel import Appended, data_record
from sessions_core.domain.guard import SEALED, UNTOUCHED, Guard
from sessions_core.domain.ids import PartId
from sessions_core.errors import GuardMismatchError, IncompatibleStoreError

pytestmark = pytest.mark.needs_s2

LIVE = Guard.live(1)


@pytest.fixture
async def other(options: S2Config, log: S2ChannelLog) -> AsyncIterator[S2ChannelLog]:
    """Another process's log over the same basin as ``log``."""
    del log  # makes the basin
    async with open_basin(options) as basin:
        yield S2ChannelLog(basin)


async def test_a_part_id_that_another_process_stored_is_known(log: S2ChannelLog, other: S2ChannelLog) -> None:
    await log.append(OUT, [record("a", "one"), data_record("b", PartId("two"))], guard=UNTOUCHED)
    again = [record("a", "one"), data_record("b", PartId("two")), record("c", "three")]
    assert await other.append(OUT, again, guard=UNTOUCHED) == [Appended(0, False), Appended(1, False), Appended(2)]
    assert await log.append(OUT, again[2:], guard=UNTOUCHED) == [Appended(2, is_new=False)]
    assert len(await stored(log)) == 3


async def test_a_part_id_is_known_although_the_guard_moved_on_behind_our_back(
    log: S2ChannelLog, other: S2ChannelLog
) -> None:
    await put(other, OUT, "warm")
    await log.append(OUT, [record("a", "part")], guard=UNTOUCHED)
    assert (await log.set_guard(OUT, SEALED, expect=UNTOUCHED)).done
    assert await other.append(OUT, [record("a", "part")], guard=UNTOUCHED) == [Appended(1, is_new=False)]
    with pytest.raises(GuardMismatchError):
        await other.append(OUT, [record("b", "new")], guard=UNTOUCHED)


async def test_8_processes_that_append_the_same_100_part_ids_store_each_once(options: S2Config) -> None:
    async def write(number: int) -> list[int]:
        async with open_basin(options) as basin:
            log = S2ChannelLog(basin)
            order = [*range(number * 12, 100), *range(number * 12)]
            seqs = {part: await log.append(OUT, [record("", f"{part}")], guard=UNTOUCHED) for part in order}
        return [seqs[part][0].seq for part in range(100)]

    async with open_basin(options) as basin:
        answers = await at_once([partial(write, number) for number in range(8)])
        assert all(answer == answers[0] for answer in answers)
        assert sorted(answers[0]) == list(range(100))
        assert (await S2ChannelLog(basin).tail(OUT)).next_seq == 100


async def test_a_guard_set_long_ago_by_another_process_is_known(log: S2ChannelLog, other: S2ChannelLog) -> None:
    await log.set_guard(OUT, LIVE, expect=UNTOUCHED)
    for _ in range(3):
        await log.append(OUT, records(1000), guard=LIVE)
    assert (await other.tail(OUT)).guard == LIVE
    with pytest.raises(GuardMismatchError) as caught:
        await put(other, OUT, "late")
    assert caught.value.actual == LIVE
    change = await other.set_guard(OUT, Guard.live(2), expect=UNTOUCHED)
    assert (change.done, change.actual, change.tail) == (False, LIVE, 3001)


async def test_a_guard_is_raised_behind_what_others_have_written(log: S2ChannelLog, other: S2ChannelLog) -> None:
    await put(other, OUT, "a")
    await put(log, OUT, "b", "c")
    change = await other.set_guard(OUT, LIVE, expect=UNTOUCHED)
    assert (change.done, change.tail) == (True, 4)
    assert not (await log.set_guard(OUT, Guard.idle(1), expect=LIVE, if_tail=3)).done
    assert (await log.set_guard(OUT, Guard.idle(1), expect=LIVE, if_tail=4)).done


async def test_of_two_processes_one_sets_the_guard(log: S2ChannelLog, other: S2ChannelLog) -> None:
    for version in range(1, 20):
        channel = make_channel(f"{version}")
        changes = await at_once(
            [
                partial(each.set_guard, channel, Guard.live(number), expect=UNTOUCHED)
                for number, each in enumerate((log, other), 1)
            ]
        )
        assert sorted(change.done for change in changes) == [False, True]
        assert changes[0].actual == changes[1].actual


async def test_a_process_that_forgot_a_channel_knows_its_part_ids_again(options: S2Config) -> None:
    async with open_basin(config(basin=options.basin, channels=2)) as basin:
        log = S2ChannelLog(basin)
        channels = [make_channel(f"{number}") for number in range(5)]
        for _ in range(2):
            for channel in channels:
                (place,) = await log.append(channel, [record("a", "part")], guard=UNTOUCHED)
                assert place.seq == 0
        assert [await stored(log, channel) for channel in channels] == [["a"]] * 5


async def test_a_new_process_reads_back_the_window_and_not_more_than_memory_allows(options: S2Config) -> None:
    async with open_basin(options) as basin:
        log = S2ChannelLog(basin)
        await log.append(OUT, [record("old", "old")], guard=UNTOUCHED)
        for number in range(4):
            await log.append(OUT, [record(b"x" * 1_000_000, f"{number}")], guard=UNTOUCHED)
        for _ in range(2):
            await log.append(OUT, records(1000), guard=UNTOUCHED)
    large = config(basin=options.basin, timeout=timedelta(seconds=10))
    async with open_basin(large) as basin:
        again = await S2ChannelLog(basin).append(OUT, [record("old", "old")], guard=UNTOUCHED)
        assert again == [Appended(0, is_new=False)]
    small = config(basin=options.basin, timeout=timedelta(seconds=10), window_bytes=2**20, part_window=timedelta(0))
    async with open_basin(small) as basin:
        again = await S2ChannelLog(basin).append(OUT, [record("old", "old")], guard=UNTOUCHED)
        assert again == [Appended(2005)]


async def test_a_basin_that_deletes_empty_streams_is_refused(options: S2Config) -> None:
    from s2_sdk import S2, BasinConfig, Endpoints, StreamConfig

    assert options.endpoint is not None
    async with S2("any", endpoints=Endpoints(options.endpoint, options.endpoint)) as client:
        streams = StreamConfig(delete_on_empty_min_age=3600)
        await client.create_basin(options.basin, config=BasinConfig(default_stream_config=streams))
    with pytest.raises(IncompatibleStoreError, match=options.basin):
        async with open_basin(options):
            pass


async def test_a_basin_of_somebody_else_needs_no_creation_on_append(options: S2Config) -> None:
    from s2_sdk import S2, Endpoints

    assert options.endpoint is not None
    async with S2("any", endpoints=Endpoints(options.endpoint, options.endpoint)) as client:
        await client.create_basin(options.basin)
    async with open_basin(config(basin=options.basin, creates_basin=False)) as basin:
        log = S2ChannelLog(basin)
        assert await put(log, OUT, "a") == [Appended(0)]
        change = await log.set_guard(make_channel("other"), LIVE, expect=UNTOUCHED)
        assert (change.done, change.tail) == (True, 1)
