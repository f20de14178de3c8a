"""Runs that wait for a worker, and jobs of an engine that come twice."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sessions_core import chat
from sessions_core.domain.channel import Io, committed_by
from sessions_core.domain.status import RunStatus
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.errors import StoreUnavailableError
from unit.core.chats import HOME, say, spec
from unit.core.promises import until_rest
from unit.core.taps import Tap
from unit.core.world import World


@pytest.fixture
def world(anyio_backend: object) -> World:
    return World()


async def leave_waiting(world: World, seconds: float, **config: Any) -> None:
    """Have a message that waits so long, since nobody runs its task."""
    async with world.process(agents=chat.Agents()) as sessions:
        await sessions.sessions.create(HOME, spec(**config))
        await say(sessions, "hello")
        await anyio.sleep(seconds)
    world.engine.jobs = dict.fromkeys(world.engine.jobs, True)  # a real engine would not have handed them out


async def answered(world: World) -> list[int | None]:
    """Return what the turn-completes cover."""
    return [committed for record in await world.records(Io.OUT) if (committed := committed_by(record)) is not None]


@pytest.mark.parametrize(
    ("ttl", "statuses"),
    [
        (None, [RunStatus.COMPLETED_SUCCESSFULLY]),
        (100, [RunStatus.COMPLETED_SUCCESSFULLY]),
        ("1h30m", [RunStatus.COMPLETED_SUCCESSFULLY]),
        (10, [RunStatus.EXPIRED, RunStatus.COMPLETED_SUCCESSFULLY]),
        ("10s", [RunStatus.EXPIRED, RunStatus.COMPLETED_SUCCESSFULLY]),
    ],
)
async def test_a_run_that_has_waited_longer_than_its_ttl_is_replaced_and_loses_no_message(
    world: World, ttl: object, statuses: list[RunStatus]
) -> None:
    await leave_waiting(world, 60, **({} if ttl is None else {"ttl": ttl}))
    async with world.process():
        await until_rest(world)
    assert [run.status for run in world.runs()] == statuses
    assert await answered(world) == [0]


async def test_an_executing_run_whose_job_comes_again_is_left_to_who_has_begun_it(world: World) -> None:
    async with world.process() as sessions, world.process() as other:
        await sessions.sessions.create(HOME, spec(idle=100))
        await say(sessions, "hello")
        await anyio.sleep(1)
        (run,) = world.runs()
        assert run.status is RunStatus.EXECUTING
        for process in (sessions, other):
            await process.executor.execute(run.id)
        await say(sessions, "more")
        await anyio.sleep(1)
        assert [run.attempt for run in world.runs()] == [1]


async def test_a_beginning_without_an_answer_is_tried_again_by_who_may_have_made_it(world: World) -> None:
    class LoseTheAnswer(Tap):
        lost = False

        async def after(self, call: str) -> None:
            if call == "RunStore.begin" and not self.lost:
                self.lost = True
                raise StoreUnavailableError

    async with world.process(LoseTheAnswer()) as sessions:
        await sessions.sessions.create(HOME, spec())
        await say(sessions, "hello")
        await until_rest(world)
    assert [run.attempt for run in world.runs()] == [2]
    assert await answered(world) == [0]


@pytest.mark.parametrize("said", ["soon", "", None])
def test_a_ttl_that_cannot_be_read_is_none(said: object) -> None:
    assert TriggerConfig({"basePayload": {}, "ttl": said}).ttl is None
