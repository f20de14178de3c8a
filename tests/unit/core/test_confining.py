"""A cancellation from within hurts nobody but whom it came out of."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import anyio
import pytest

from sessions_core.confining import confined
from sessions_core.domain.ids import RunId
from sessions_core.errors import StrayCancellationError
from sessions_core.services.carrier import Carrier


@pytest.fixture
def anyio_backend() -> str:
    """Only asyncio has cancellations of its own."""
    return "asyncio"


async def strays() -> None:
    """Let out a cancellation that no scope has asked for."""
    raise asyncio.CancelledError


async def ends_though_cancelled() -> None:
    """End well at the moment of being cancelled, as drivers do whose answer has just come."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return


async def test_a_stray_cancellation_is_an_error() -> None:
    with pytest.raises(StrayCancellationError) as raised:
        await confined(strays())
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)


async def test_a_cancellation_of_a_scope_that_lost_its_mark_is_still_the_scope_s() -> None:
    with anyio.CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        await confined(asyncio.gather(ends_though_cancelled(), ends_though_cancelled()))
    assert scope.cancelled_caught


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_run_that_lets_a_cancellation_out_does_not_end_the_others(is_cancelled: bool) -> None:
    reported: list[tuple[RunId, Exception]] = []
    carrier, finished = Carrier(lambda run_id, error: reported.append((run_id, error))), anyio.Event()
    bad, good = RunId("run_bad"), RunId("run_good")

    async def execute(run_id: RunId) -> None:
        if run_id == good:
            await anyio.sleep(0.01)
            finished.set()
        elif is_cancelled:
            carrier.cancel(bad)
            await asyncio.gather(ends_though_cancelled(), ends_though_cancelled())
        else:
            await strays()

    async with carrier.carrying(execute, drain=lambda: None, patience=timedelta(seconds=1)):
        carrier.start(bad)
        carrier.start(good)
        with anyio.fail_after(5):
            await finished.wait()
            await carrier.wait_for_room(1)
    assert [(run_id, type(error)) for run_id, error in reported] == (
        [] if is_cancelled else [(bad, StrayCancellationError)]
    )
