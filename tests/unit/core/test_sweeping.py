"""The sweep's judgement: who is dead, and what does not wait for what."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import attrs
import pytest

from sessions_core.domain.channel import Io
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import Holding
from sessions_core.domain.status import RunStatus
from sessions_core.domain.waitpoint import WaitpointStatus
from sessions_core.errors import StoreUnavailableError
from sessions_core.ports.leader_lock import LeaderLock
from sessions_core.services.sweep import SweepConfig
from sessions_core.services.wait_service import WaitRequest
from unit.core.chats import HOME, NAME, say, spec
from unit.core.taps import SlowAt, Tap
from unit.core.world import World

STALL_SECONDS = 15


class NeverElected(LeaderLock):
    """Lets nobody lead."""

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncGenerator[anyio.CancelScope]:
        await anyio.sleep_forever()
        yield anyio.CancelScope()


@attrs.define
class SilentUntil(Tap):
    """Loses heartbeats up to a moment, as if the store were away; None loses all."""

    moment: float | None

    async def before(self, call: str) -> None:
        if call == "RunStore.beat" and (self.moment is None or anyio.current_time() < self.moment):
            raise StoreUnavailableError


@pytest.fixture
def world(anyio_backend: object) -> World:
    return World()


async def lead_after_an_outage(world: World, silent: Tap, seconds: float) -> list[RunStatus]:
    """Let somebody lead who finds a run without a heartbeat for 30 s; return how the runs are *seconds* later."""
    async with world.process(ports=attrs.evolve(world.ports(silent), leader=NeverElected())) as worker:
        await worker.sessions.create(HOME, spec(idle=1000))
        await say(worker, "hello")
        await anyio.sleep(30)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.sessions().sweep.run_forever)
            await anyio.sleep(seconds)
            tasks.cancel_scope.cancel()
        return [run.status for run in world.runs()]


async def test_after_the_store_was_away_nobody_who_lives_is_buried(world: World) -> None:
    assert await lead_after_an_outage(world, SilentUntil(31), 60) == [RunStatus.EXECUTING]


async def test_a_new_leader_buries_the_dead_within_the_stall_time_and_two_seconds(world: World) -> None:
    assert await lead_after_an_outage(world, SilentUntil(None), STALL_SECONDS / 2 - 1) == [RunStatus.EXECUTING]
    world = World()
    assert (await lead_after_an_outage(world, SilentUntil(None), STALL_SECONDS / 2 + 2))[0] is RunStatus.CRASHED


async def test_who_gives_a_sign_of_life_while_the_sweep_judges_lives(world: World) -> None:
    """A leader may stand still between looking and judging, for minutes."""

    class BeatInBetween(Tap):
        async def after(self, call: str) -> None:
            if call == "Backlog.list_stalled":
                await world.ports().runs.beat([Holding(run.id, run.attempt) for run in world.runs()])

    sessions = world.sessions(BeatInBetween())
    created = await sessions.sessions.create(HOME, spec())
    assert await world.ports().runs.begin(created.run_id, 1) is not None
    await anyio.sleep(STALL_SECONDS + 1)
    await sessions.sweep.sweep()
    assert [run.status for run in world.runs()] == [RunStatus.EXECUTING]


@pytest.mark.parametrize(
    "call", ["Backlog.list_unsettled", "Backlog.list_undispatched", "Backlog.list_unsealed", "RunStore.finish"]
)
async def test_a_wait_times_out_however_long_other_repairs_take(world: World, call: str) -> None:
    sessions = world.sessions(SlowAt(call, 1000))
    created = await sessions.sessions.create(HOME, spec())
    begun = await world.ports().runs.begin(created.run_id, 1)
    assert begun is not None
    asked = WaitRequest(session=NAME, io=Io.IN, timeout="1s")
    waitpoint = (await sessions.waits.create(HOME.id, RunId(created.run_id), asked)).waitpoint
    with anyio.move_on_after(60):
        await sessions.sweep.run_forever()
    ended = await sessions.waits.get(HOME.id, waitpoint.id)
    assert ended.status is WaitpointStatus.TIMED_OUT
    assert ended.completed_at is not None
    assert ended.completed_at - ended.created_at < timedelta(seconds=5)


async def test_one_repair_that_hangs_does_not_keep_the_others_waiting(world: World) -> None:
    class HangOnFirst(Tap):
        count = 0

        async def before(self, call: str) -> None:
            if call == "RunStore.finish":
                self.count += 1
                if self.count == 1:
                    await anyio.sleep(1000)

    sessions = world.sessions(HangOnFirst())
    for number in range(20):
        created = await sessions.sessions.create(HOME, spec(name=f"{number}"))
        assert await world.ports().runs.begin(created.run_id, 1) is not None
    with anyio.move_on_after(60):
        await sessions.sweep.run_forever()
    assert sorted(run.status.value for run in world.runs()) == ["CRASHED"] * 19 + ["EXECUTING"]


async def test_after_a_large_worker_has_died_all_its_runs_are_looked_after_without_a_pause(world: World) -> None:
    sessions = world.sessions()
    sessions.sweep.config = SweepConfig(batch=10)
    for number in range(45):
        created = await sessions.sessions.create(HOME, spec(name=f"{number}"))
        assert await world.ports().runs.begin(created.run_id, 1) is not None
    with anyio.move_on_after(STALL_SECONDS + 2):
        await sessions.sweep.run_forever()
    assert {run.status for run in world.runs()} == {RunStatus.CRASHED}
    assert all(run.settled_at is not None for run in world.runs())
