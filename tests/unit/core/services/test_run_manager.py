"""The runs behind a session: ensured, claimed once, handed over."""

from __future__ import annotations

from typing import Any

import anyio
import attrs
import pytest

from sessions_core.domain.channel import UPGRADE_REQUIRED, Io, data_record
from sessions_core.domain.claim import Claim
from sessions_core.domain.events import ClaimLost, RunClaimed
from sessions_core.domain.guard import Guard
from sessions_core.domain.ids import PartId, RunId
from sessions_core.domain.run import Holding, Progress, RunRecord
from sessions_core.domain.status import RunStatus
from sessions_core.errors import (
    ClaimExhaustedError,
    RunNotFoundError,
    SessionClosedError,
    StaleRunError,
    UnavailableError,
)
from sessions_core.facade import Sessions
from unit.core.chats import HOME, NAME, say, spec
from unit.core.services.runs import begin_run, end_run
from unit.core.taps import SlowAt, Tap
from unit.core.world import World

# --- ensure_run -----------------------------------------------------------------------------------


async def test_a_live_run_is_reused(world: World, sessions: Sessions) -> None:
    session = (await sessions.sessions.create(HOME, spec())).session
    assert await sessions.sessions.run_manager.ensure_run(session) == session
    assert len(world.runs()) == 1


async def test_a_dead_run_is_replaced_by_one_that_goes_on_where_it_ended(world: World, sessions: Sessions) -> None:
    session = (await sessions.sessions.create(HOME, spec())).session
    await end_run(world, RunStatus.COMPLETED_SUCCESSFULLY, Progress(4, 9))
    fresh = await sessions.sessions.run_manager.ensure_run(session)
    assert fresh.current_run_version == 2
    assert world.runs()[1].start == Progress(4, 9)
    assert world.observer.of(RunClaimed)[-1].reason == "continuation"


async def test_a_run_that_has_left_is_replaced_although_its_record_says_alive(world: World, sessions: Sessions) -> None:
    session = (await sessions.sessions.create(HOME, spec())).session
    await begin_run(world)
    assert (await sessions.sessions.run_manager.ensure_run(session, left=1)).current_run_version == 2


async def test_many_who_find_a_dead_run_make_one_new_run(world: World, sessions: Sessions) -> None:
    session = (await sessions.sessions.create(HOME, spec())).session
    await end_run(world)
    runs: list[RunId | None] = []

    async def ensure() -> None:
        runs.append((await sessions.sessions.run_manager.ensure_run(session)).current_run_id)

    async with anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(ensure)
    assert len(set(runs)) == 1
    assert len(world.runs()) == 2
    assert len(world.observer.of(ClaimLost)) == 29


class Rivals:
    """A session store in which somebody else is always faster, and whose runs die at once."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.claims = 0
        self.inner = world.ports().sessions

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def claim_run(
        self,
        run: RunRecord,
        *,
        expected_version: int,
        expected_run: RunId | None = None,
        expected_epoch: int | None = None,
    ) -> Claim:
        self.claims += 1
        rival = attrs.evolve(run, id=RunId(f"run_rival{self.claims}"), status=RunStatus.CRASHED)
        assert await self.inner.claim_run(rival, expected_version=expected_version) is Claim.WON
        return await self.inner.claim_run(
            run, expected_version=expected_version, expected_run=expected_run, expected_epoch=expected_epoch
        )


async def test_it_gives_up_after_three_lost_claims(world: World, sessions: Sessions) -> None:
    session = (await sessions.sessions.create(HOME, spec())).session
    await end_run(world)
    rivals = Rivals(world)
    with pytest.raises(ClaimExhaustedError) as caught:
        await world.sessions(sessions=rivals).sessions.run_manager.ensure_run(session)
    assert caught.value.attempts == rivals.claims == 3
    assert not any(run.id in world.engine.jobs for run in world.runs()[1:]), "no loser was dispatched"


async def test_no_run_is_ensured_for_a_closed_session_however_stale_the_caller(
    world: World, sessions: Sessions
) -> None:
    session = (await sessions.sessions.create(HOME, spec())).session
    await sessions.sessions.close(HOME.id, NAME, "done")
    await end_run(world)
    with pytest.raises(SessionClosedError):
        await sessions.sessions.run_manager.ensure_run(session)
    assert len(world.runs()) == 1


async def test_a_claim_that_nobody_confirms_is_an_error_and_no_success(world: World, sessions: Sessions) -> None:
    await sessions.sessions.create(HOME, spec())
    await end_run(world)
    with pytest.raises(UnavailableError):
        await say(world.sessions(SlowAt("SessionStore.claim_run", 60)), "hello")
    assert (await world.log.tail(world.session().channel(Io.IN))).guard != Guard.live(2)


async def test_a_cancelled_caller_does_not_tear_a_claim_from_its_dispatch(world: World, sessions: Sessions) -> None:
    session = (await sessions.sessions.create(HOME, spec())).session
    await end_run(world)

    class Cancelling(Tap):
        async def before(self, call: str) -> None:
            if call == "SessionStore.claim_run":
                scope.cancel()
            await anyio.lowlevel.checkpoint()

    with anyio.CancelScope() as scope:
        await world.sessions(Cancelling()).sessions.run_manager.ensure_run(session)
        await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert world.runs()[1].dispatched_at is not None


# --- Hand-over ------------------------------------------------------------------------------------


async def test_a_hand_over_tells_readers_before_the_new_run_begins(world: World, sessions: Sessions) -> None:
    created = await sessions.sessions.create(HOME, spec())
    run = await begin_run(world)
    moved = await sessions.sessions.end_and_continue(HOME.id, NAME, created.run_id, "upgrade", epoch=run.epoch)
    assert moved.swapped
    assert world.session().current_run_id == moved.run_id != created.run_id
    (notice,) = await world.records(Io.OUT)
    assert notice.control == UPGRADE_REQUIRED
    assert [line.reason for line in await sessions.sessions.list_runs(HOME.id, NAME)] == ["upgrade", "initial"]
    assert world.runs()[1].dispatched_at is not None
    assert world.runs()[0].is_alive, "the old run ends by itself"


@pytest.mark.parametrize(("given", "kept"), [("upgrade", "upgrade"), ("continuation", "continuation"), ("x", "manual")])
async def test_an_unknown_reason_counts_as_manual(world: World, sessions: Sessions, given: str, kept: str) -> None:
    created = await sessions.sessions.create(HOME, spec())
    await sessions.sessions.end_and_continue(HOME.id, NAME, created.run_id, given)
    assert world.runs()[1].reason == kept


async def test_only_one_hand_over_of_a_run_succeeds(world: World, sessions: Sessions) -> None:
    created = await sessions.sessions.create(HOME, spec())
    moves: list[Any] = []

    async def move() -> None:
        moves.append(await sessions.sessions.end_and_continue(HOME.id, NAME, created.run_id, "upgrade"))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(move)
    assert [moved.swapped for moved in moves].count(True) == 1
    assert len({moved.run_id for moved in moves}) == 1
    assert len(world.runs()) == 2


async def test_a_hand_over_is_refused_when_stale_closed_or_unknown(world: World, sessions: Sessions) -> None:
    created = await sessions.sessions.create(HOME, spec())
    run = await begin_run(world)
    with pytest.raises(StaleRunError):
        await sessions.sessions.end_and_continue(HOME.id, NAME, created.run_id, "upgrade", epoch=run.epoch - 1)
    with pytest.raises(RunNotFoundError):
        await sessions.sessions.end_and_continue(HOME.id, NAME, RunId("run_nobody"), "upgrade")
    await sessions.sessions.close(HOME.id, NAME)
    with pytest.raises(SessionClosedError):
        await sessions.sessions.end_and_continue(HOME.id, NAME, created.run_id, "upgrade", epoch=run.epoch)


async def test_a_replaced_run_may_not_write_complete_hand_over_or_close(world: World, sessions: Sessions) -> None:
    created = await sessions.sessions.create(HOME, spec())
    old = await begin_run(world)
    await sessions.sessions.end_and_continue(HOME.id, NAME, created.run_id, "upgrade", epoch=old.epoch)
    new = await begin_run(world)
    session, record = world.session(), data_record("x", PartId("x"))
    with pytest.raises(StaleRunError, match=r"^Epoch 1 is over") as refusal:
        await sessions.channels.append(session, Io.OUT, [record], epoch=old.epoch)
    assert (refusal.value.run, refusal.value.epoch) == (None, old.epoch)
    with pytest.raises(StaleRunError):
        await sessions.channels.trim(session, 0, epoch=old.epoch)
    with pytest.raises(StaleRunError):
        await sessions.sessions.end_and_continue(HOME.id, NAME, created.run_id, "upgrade", epoch=old.epoch)
    with pytest.raises(StaleRunError, match=f"^Run '{old.id}' is no longer"):
        await sessions.sessions.close(HOME.id, NAME, calling_run=created.run_id, epoch=old.epoch)
    with pytest.raises(StaleRunError, match=r"^Epoch 1 is over"):
        await sessions.sessions.close(HOME.id, NAME, epoch=old.epoch)
    await sessions.channels.append(session, Io.OUT, [record], epoch=new.epoch)


async def test_a_retry_of_a_run_makes_its_paused_predecessor_stale(world: World, sessions: Sessions) -> None:
    await sessions.sessions.create(HOME, spec())
    first = await begin_run(world)
    second = await begin_run(world)
    assert second.attempt == 2
    with pytest.raises(StaleRunError):
        await sessions.channels.append(world.session(), Io.OUT, [data_record("x", PartId("x"))], epoch=first.epoch)
    assert not await world.ports().runs.finish(Holding(first.id, first.attempt), RunStatus.COMPLETED_SUCCESSFULLY)
