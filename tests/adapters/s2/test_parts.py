"""Part ids in memory: how many are kept, and that those which are not are found all the same."""

from __future__ import annotations

import attrs
import pytest

from adapters.s2.conftest import config
from contract.logs import OUT
from contract.makers import make_channel, record
from harness.s2_proxy import Proxy
from sessions_adapters.s2 import S2ChannelLog, S2Config, open_basin
from sessions_adapters.s2.parts import PartMemory, PartWindow
from sessions_adapters.s2.records import entry_of, part_of
from sessions_core.domain.channel import Appended
from sessions_core.domain.guard import UNTOUCHED

RECORDS, MILLISECONDS, LIMIT = 3, 1000, 10
OTHER = make_channel("other")
SIX = [record("x" * 900_000, f"their {number}") for number in range(6)]


@pytest.fixture
def memory() -> PartMemory:
    return PartMemory(RECORDS, MILLISECONDS, LIMIT)


def filled(memory: PartMemory, count: int, now: int = 0) -> PartWindow:
    """Return a window with *count* ids, all stored *now*."""
    window = PartWindow(memory)
    window.begin()
    for seq in range(count):
        window.add(b"%d" % seq, seq, now)
    window.settle(next_seq=count, now=now)
    return window


def test_the_windows_used_longest_ago_are_dropped_when_all_together_are_too_large(memory: PartMemory) -> None:
    first, second, third = filled(memory, 4), filled(memory, 4), filled(memory, 2)
    first.settle(next_seq=4, now=0)
    fourth = filled(memory, 3)
    assert [len(window) for window in (first, second, third, fourth)] == [4, 0, 2, 3]
    assert [window.is_whole for window in (first, second, third, fourth)] == [True, False, True, True]


def test_of_a_window_that_alone_is_too_large_the_latest_ids_are_kept(memory: PartMemory) -> None:
    window = filled(memory, LIMIT + 5)
    assert len(window) == LIMIT
    assert (window.find(b"4"), window.find(b"5")) == (None, 5)


def test_a_window_that_nobody_uses_is_dropped_when_another_channel_is_used(memory: PartMemory) -> None:
    idle, used = filled(memory, 5), filled(memory, 1)
    used.settle(next_seq=1, now=MILLISECONDS)
    assert len(idle) == 5
    used.settle(next_seq=1, now=MILLISECONDS + 1)
    assert (len(idle), idle.is_whole) == (0, False)


def test_an_id_is_kept_as_long_as_one_of_both_windows_has_it(memory: PartMemory) -> None:
    window = filled(memory, 5)
    window.settle(next_seq=5, now=MILLISECONDS)
    assert len(window) == 5
    window.settle(next_seq=5, now=MILLISECONDS + 1)
    assert (window.find(b"1"), window.find(b"2")) == (None, 2)


def test_a_window_that_is_not_whole_holds_nothing(memory: PartMemory) -> None:
    window = PartWindow(memory)
    window.add(b"a", 7, 0)
    assert window.find(b"a") is None


def test_a_mark_of_ours_is_no_part_id() -> None:
    stored = entry_of(record('{"data":"x"}')).stored
    assert len(stored.headers) == 1
    assert part_of(stored) is None


@pytest.mark.needs_s2
async def test_an_id_that_was_dropped_is_read_back_from_the_stream(
    log: S2ChannelLog, proxy: Proxy, options: S2Config
) -> None:
    del log  # makes the basin
    async with open_basin(attrs.evolve(config(proxy.endpoint, basin=options.basin), parts=2)) as basin:
        spoilt = S2ChannelLog(basin)
        for channel in (OUT, OTHER):
            await spoilt.append(channel, [record("a", "1"), record("b", "2")], guard=UNTOUCHED)
        proxy.seen.clear()
        for channel, count in ((OTHER, 0), (OUT, 1), (OUT, 1)):
            found = await spoilt.append(channel, [record("b", "2"), record("a", "1")], guard=UNTOUCHED)
            assert found == [Appended(1, is_new=False), Appended(0, is_new=False)]
            assert readings(proxy) == count


@pytest.mark.needs_s2
async def test_what_others_wrote_is_caught_up_with_no_further_than_a_window_has_bytes(
    log: S2ChannelLog, proxy: Proxy, options: S2Config
) -> None:
    narrow = config(proxy.endpoint, basin=options.basin, window_bytes=1_048_576)
    async with open_basin(narrow) as basin:
        spoilt = S2ChannelLog(basin)
        await spoilt.append(OUT, [record("a", "mine")], guard=UNTOUCHED)
        for their in SIX:
            await log.append(OUT, [their], guard=UNTOUCHED)
        proxy.seen.clear()
        assert await spoilt.append(OUT, [record("b")], guard=UNTOUCHED) == [Appended(7)]
        assert readings(proxy) == 2
        assert await spoilt.append(OUT, [SIX[0], record("a", "mine")], guard=UNTOUCHED) == [
            Appended(1, is_new=False),
            Appended(0, is_new=False),
        ]


def readings(proxy: Proxy) -> int:
    """Count the readings of records."""
    return len(
        [each for each in proxy.seen if each.method == "GET" and each.path.partition("?")[0].endswith("/records")]
    )
