"""S2 that answers wrongly, late or not at all: what is acknowledged is stored, and stored once."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import anyio
import pytest
from s2_sdk import S2Error

from adapters.s2.conftest import config
from contract.logs import OUT, bodies_of, stored
from contract.makers import Call, at_once, make_channel, record
from harness.s2_proxy import STATUSES, Fault, Proxy
from sessions_adapters.s2 import S2ChannelLog, S2Config, open_basin
from sessions_core.domain.channel import Appended, Batch, Channel, Record, control_record
from sessions_core.domain.guard import UNTOUCHED, Guard
from sessions_core.errors import ChannelUnavailableError, GuardMismatchError

pytestmark = pytest.mark.needs_s2

LIVE = Guard.live(1)
PASSING = [fault for fault in Fault if fault not in (Fault.FORBIDDEN, Fault.LATE)]


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name)
async def test_an_append_is_stored_once_whatever_happens_to_its_answer(
    log: S2ChannelLog, spoilt: S2ChannelLog, proxy: Proxy, fault: Fault, times: int
) -> None:
    await log.append(OUT, [record("before")], guard=UNTOUCHED)
    proxy.faults.extend([fault] * times)
    batch = [record("a", "part"), control_record("note"), record('{"data":1,"id":"random"}')]
    assert await spoilt.append(OUT, batch, guard=UNTOUCHED) == [Appended(1), Appended(2), Appended(3)]
    assert await spoilt.append(OUT, [record("b")], guard=UNTOUCHED) == [Appended(4)]
    assert not proxy.faults
    assert await stored(log) == ["before", "a", "", '{"data":1,"id":"random"}', "b"]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name)
async def test_a_guard_is_set_once_whatever_happens_to_the_answer(
    log: S2ChannelLog, spoilt: S2ChannelLog, proxy: Proxy, fault: Fault
) -> None:
    await log.append(OUT, [record("a")], guard=UNTOUCHED)
    proxy.faults.extend([fault] * 2)
    change = await spoilt.set_guard(OUT, LIVE, expect=UNTOUCHED, if_tail=1)
    assert (change.done, change.actual, change.tail) == (True, LIVE, 2)
    assert (await log.tail(OUT)).next_seq == 2


async def test_an_append_that_arrives_after_it_was_repeated_is_refused(
    log: S2ChannelLog, spoilt: S2ChannelLog, proxy: Proxy
) -> None:
    proxy.faults.extend([Fault.LATE] * 3)
    assert await spoilt.append(OUT, [record("a", "part"), record("b")], guard=UNTOUCHED) == [Appended(0), Appended(1)]
    proxy.passing.set()
    with anyio.fail_after(20):
        while len(proxy.ghosts) < 3:
            await anyio.sleep(0.01)
    assert proxy.ghosts == [412, 412, 412]
    assert await stored(log) == ["a", "b"]


async def test_an_append_whose_answer_was_lost_is_found_behind_what_others_wrote_since(
    log: S2ChannelLog, spoilt: S2ChannelLog, proxy: Proxy
) -> None:
    proxy.faults.append(Fault.SILENT)

    async def others() -> None:
        while not await stored(log):
            await anyio.sleep(0.001)
        await log.append(OUT, [record("theirs", "other")], guard=UNTOUCHED)
        assert (await log.set_guard(OUT, LIVE, expect=UNTOUCHED)).done

    calls: list[Call] = [partial(spoilt.append, OUT, [record("a", "part")], guard=UNTOUCHED), others]
    assert (await at_once(calls))[0] == [Appended(0)]
    assert await spoilt.append(OUT, [record("b", "other")], guard=LIVE) == [Appended(1, is_new=False)]
    assert await stored(log) == ["a", "theirs"]


async def test_an_append_that_was_overtaken_by_a_guard_is_refused_and_not_stored(
    log: S2ChannelLog, spoilt: S2ChannelLog, proxy: Proxy
) -> None:
    await spoilt.append(OUT, [record("a")], guard=UNTOUCHED)
    proxy.faults.append(Fault.LATE)

    async def overtake() -> None:
        with anyio.fail_after(20):
            while proxy.faults:
                await anyio.sleep(0.001)
        assert (await log.set_guard(OUT, LIVE, expect=UNTOUCHED)).done

    async def append() -> None:
        with pytest.raises(GuardMismatchError) as caught:
            await spoilt.append(OUT, [record("b", "part")], guard=UNTOUCHED)
        assert caught.value.actual == LIVE

    await at_once([append, overtake])
    proxy.passing.set()
    with anyio.fail_after(20):
        while not proxy.ghosts:
            await anyio.sleep(0.01)
    assert await stored(log) == ["a"]


@pytest.mark.parametrize("fault", [Fault.BUSY, Fault.BROKEN, Fault.SILENT], ids=lambda fault: fault.name)
async def test_without_patience_the_outcome_stays_open_and_a_retry_with_the_part_id_settles_it(
    log: S2ChannelLog, proxy: Proxy, options: S2Config, fault: Fault
) -> None:
    impatient = config(proxy.endpoint, basin=options.basin, patience=timedelta(seconds=1))
    async with open_basin(impatient) as basin:
        spoilt = S2ChannelLog(basin)
        proxy.always = fault
        with pytest.raises(ChannelUnavailableError) as caught:
            await spoilt.append(OUT, [record("a", "part")], guard=UNTOUCHED)
        assert caught.value.__cause__ is not None
        assert "secret" not in str(caught.value)
        proxy.always = None
        (place,) = await spoilt.append(OUT, [record("a", "part")], guard=UNTOUCHED)
    assert place == Appended(0, is_new=fault is Fault.BUSY)
    assert await stored(log) == ["a"]


@pytest.mark.parametrize("is_known", [True, False], ids=["appends", "readings"])
async def test_no_append_waits_longer_than_its_patience(proxy: Proxy, options: S2Config, is_known: bool) -> None:
    """One hangs in S2, one waits for its channel, and one for its turn among the channels; no attempt ends by itself."""
    hung = config(
        proxy.endpoint,
        basin=options.basin,
        timeout=timedelta(minutes=2),
        patience=timedelta(seconds=1),
        flights=1,
    )

    async def append(channel: Channel) -> None:
        with pytest.raises(ChannelUnavailableError) as caught:
            await spoilt.append(channel, [record("a", "part")], guard=UNTOUCHED)
        assert caught.value.__cause__ is not None

    async with open_basin(hung) as basin:
        spoilt = S2ChannelLog(basin)
        if is_known:
            proxy.always = Fault.SILENT
        else:
            proxy.read_faults.extend([Fault.SILENT] * 100)
        with anyio.fail_after(30):
            await at_once([partial(append, OUT), partial(append, OUT), partial(append, make_channel("other"))])
            with pytest.raises(ChannelUnavailableError):
                await spoilt.set_guard(OUT, LIVE, expect=UNTOUCHED)


async def test_each_caller_is_told_of_a_failure_by_an_exception_of_its_own(spoilt: S2ChannelLog, proxy: Proxy) -> None:
    proxy.always = Fault.FORBIDDEN
    errors: list[Exception] = []

    async def append() -> None:
        with pytest.raises(ChannelUnavailableError) as caught:
            await spoilt.append(OUT, [record("a")], guard=UNTOUCHED)
        errors.append(caught.value)

    await at_once([append] * 5)
    assert len([request for request in proxy.seen if request.is_append]) < 5
    assert len({id(error) for error in errors}) == 5
    assert all(isinstance(error.__cause__, S2Error) for error in errors)


async def test_what_would_be_refused_again_is_given_up_at_once(spoilt: S2ChannelLog, proxy: Proxy) -> None:
    proxy.always = Fault.FORBIDDEN
    with anyio.fail_after(5), pytest.raises(ChannelUnavailableError):
        await spoilt.append(OUT, [record("a")], guard=UNTOUCHED)
    assert len([request for request in proxy.seen if request.is_append]) == 1


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name)
async def test_what_is_read_is_whole_whatever_happens_to_an_answer(
    log: S2ChannelLog, spoilt: S2ChannelLog, proxy: Proxy, fault: Fault
) -> None:
    await log.append(OUT, [record("a"), record("b")], guard=UNTOUCHED)
    proxy.read_faults.extend([fault] * 3)
    assert bodies_of((await spoilt.read(OUT, 0, 10)).records) == ["a", "b"]
    proxy.read_faults.extend([fault] * 2)
    assert bodies_of(await spoilt.read_back(OUT, 2, 10)) == ["b", "a"]
    proxy.read_faults.extend([fault] * 2)
    assert (await spoilt.tail(OUT)).next_seq == 2
    assert not proxy.read_faults


@pytest.mark.parametrize("fault", [fault for fault in PASSING if fault in STATUSES], ids=lambda fault: fault.name)
async def test_a_follower_that_is_refused_for_a_while_misses_nothing(
    log: S2ChannelLog, spoilt: S2ChannelLog, proxy: Proxy, fault: Fault
) -> None:
    await log.append(OUT, [record("a")], guard=UNTOUCHED)
    proxy.read_faults.extend([fault] * 2)
    with anyio.fail_after(30):
        async with spoilt.follow(OUT, 0) as batches:
            assert bodies_of((await anext(batches)).records) == ["a"]
            proxy.read_faults.extend([fault] * 2)
            proxy.cut()
            await log.append(OUT, [record("b")], guard=UNTOUCHED)
            assert bodies_of((await anext(batches)).records) == ["b"]
    assert not proxy.read_faults


async def test_a_reading_that_would_be_refused_again_is_an_error_in_our_words(
    log: S2ChannelLog, spoilt: S2ChannelLog, proxy: Proxy
) -> None:
    await log.append(OUT, [record("a")], guard=UNTOUCHED)

    async def follow() -> None:
        async with spoilt.follow(OUT, 0) as batches:
            await anext(batches)

    for read in (
        partial(spoilt.read, OUT, 0, 10),
        partial(spoilt.read_back, OUT, 1, 1),
        partial(spoilt.tail, OUT),
        follow,
    ):
        proxy.read_faults.extend([Fault.FORBIDDEN] * 2)
        with anyio.fail_after(5), pytest.raises(ChannelUnavailableError) as caught:
            await read()
        assert "secret" not in str(caught.value)
        assert isinstance(caught.value.__cause__, S2Error)
        proxy.read_faults.clear()


async def test_a_follower_goes_on_over_cut_connections(log: S2ChannelLog, spoilt: S2ChannelLog, proxy: Proxy) -> None:
    found: list[Record] = []
    with anyio.fail_after(30):
        async with spoilt.follow(OUT, 0) as batches:
            for number in range(4):
                await log.append(OUT, [record(f"{number}"), record("x")], guard=UNTOUCHED)
                while len(found) < 2 * (number + 1):
                    found.extend((await anext(batches)).records)
                proxy.cut()
    assert bodies_of(found) == ["0", "x", "1", "x", "2", "x", "3", "x"]
    assert [entry.seq for entry in found] == list(range(8))


async def test_a_follower_makes_a_stream_that_others_make_at_the_same_time(
    log: S2ChannelLog, spoilt: S2ChannelLog, proxy: Proxy
) -> None:
    proxy.conflicts = 2
    async with spoilt.follow(OUT, 0) as batches, anyio.create_task_group() as tasks:
        tasks.start_soon(_next, batches)
        with anyio.fail_after(20):
            while proxy.conflicts:
                await anyio.sleep(0.001)
        await log.append(OUT, [record("a")], guard=UNTOUCHED)


async def test_a_wait_for_the_next_batch_can_be_cancelled_and_taken_up_again(log: S2ChannelLog) -> None:
    async with log.follow(OUT, 0) as batches:
        for number in range(20):
            with anyio.move_on_after(0.002 * (number % 4)):
                await anext(batches)
                raise AssertionError
            await log.append(OUT, [record(f"{number}")], guard=UNTOUCHED)
            with anyio.fail_after(20):
                assert bodies_of((await anext(batches)).records) == [f"{number}"]


async def test_a_closed_basin_leaves_no_task_and_no_connection(proxy: Proxy) -> None:
    before = asyncio.all_tasks() | {task for connection in proxy.connections for task in connection.tasks.values()}
    async with open_basin(config(proxy.endpoint)) as basin:
        log = S2ChannelLog(basin)
        proxy.faults = deque([Fault.SILENT])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(log.append, OUT, [record("a")], guard=UNTOUCHED))
            async with log.follow(OUT, 0) as batches:
                tasks.start_soon(_next, batches)
                with anyio.fail_after(20):
                    while proxy.faults:
                        await anyio.sleep(0.001)
                tasks.cancel_scope.cancel()
    with anyio.fail_after(20):
        while proxy.connections:
            await anyio.sleep(0.01)
    gc.collect()
    theirs = {task for task in asyncio.all_tasks() - before if "s2_sdk" in repr(task) or "s2/" in repr(task)}
    assert theirs == set()


async def _next(batches: AsyncIterator[Batch]) -> None:
    await anext(batches)
