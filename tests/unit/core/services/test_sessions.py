"""Creating, finding, changing, listing and closing sessions, and the runs behind them, on a clock that stands still."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import attrs
import pytest

from sessions_core.domain.channel import SESSION_CLOSED, UPGRADE_REQUIRED, Io, data_record
from sessions_core.domain.claim import Claim
from sessions_core.domain.environment import Environment
from sessions_core.domain.events import ClaimLost, RunClaimed, SessionCreated, SystemFailed
from sessions_core.domain.guard import Guard
from sessions_core.domain.ids import EnvironmentId, PartId, RunId
from sessions_core.domain.pagination import Direction, PageRequest, SessionFilter
from sessions_core.domain.run import Holding, Progress, RunRecord
from sessions_core.domain.session import SessionUpdate
from sessions_core.domain.status import RunStatus, SessionStatus
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.errors import (
    ClaimExhaustedError,
    InvalidError,
    RunNotFoundError,
    SessionClosedError,
    SessionExpiredError,
    SessionNotFoundError,
    StaleRunError,
    TaskMismatchError,
    UnavailableError,
)
from sessions_core.facade import Sessions
from sessions_core.services.session_service import NewSession
from sessions_core.testing import ManualClock
from unit.core.kit import HOME, NAME, SlowAt, Tap, World, said, say, spec

AWAY: Environment = attrs.evolve(HOME, id=EnvironmentId("env_away"))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def world(clock: ManualClock) -> World:
    return World(clock=clock)


@pytest.fixture
def sessions(world: World) -> Sessions:
    return world.sessions()


async def end_run(world: World, status: RunStatus = RunStatus.CRASHED, end: Progress | None = None) -> RunRecord:
    """End the current run behind everybody's back."""
    run_id = world.session().current_run_id
    assert run_id is not None
    run = world.tables.runs[run_id]
    ended = attrs.evolve(run, status=status, end=end, ended_at=world.clock.now())
    return world.tables.save_run(ended)


async def begin_run(world: World) -> RunRecord:
    """Begin the current run by hand and raise the guard of ``out``, as an executor does."""
    run_id = world.session().current_run_id
    assert run_id is not None
    ports = world.ports()
    run = await ports.runs.begin(run_id, world.tables.runs[run_id].attempt + 1)
    assert run is not None
    out = world.session().channel(Io.OUT)
    tail = await world.log.tail(out)
    assert (await world.log.set_guard(out, Guard.live(run.epoch), expect=tail.guard)).done
    return run


# --- Create ---------------------------------------------------------------------------------------


async def test_a_new_session_gets_a_run_that_is_dispatched(world: World, sessions: Sessions) -> None:
    created = await sessions.sessions.create(HOME, spec())
    assert not created.is_cached
    (run,) = world.runs()
    assert created.run_id == run.id == created.session.current_run_id
    assert created.session.current_run_version == run.version == 1
    assert run.dispatched_at is not None
    assert list(world.engine.jobs) == [run.id]
    assert [line.reason for line in await sessions.sessions.list_runs(HOME.id, NAME)] == ["initial"]
    assert [event.is_cached for event in world.observer.of(SessionCreated)] == [False]


async def test_creating_again_gets_the_session_and_its_live_run(world: World, sessions: Sessions) -> None:
    first = await sessions.sessions.create(HOME, spec())
    again = await sessions.sessions.create(HOME, attrs.evolve(spec(maxAttempts=7), tags=("new",)))
    assert again.is_cached
    assert (again.session.id, again.run_id) == (first.session.id, first.run_id)
    assert again.session.trigger_config.max_attempts == 7, "the trigger config is refreshed"
    assert again.session.tags == (), "nothing else is"
    assert len(world.runs()) == 1


async def test_creating_again_replaces_a_dead_run(world: World, sessions: Sessions) -> None:
    first = await sessions.sessions.create(HOME, spec())
    await end_run(world)
    again = await sessions.sessions.create(HOME, spec())
    assert again.run_id != first.run_id
    assert world.runs()[1].previous_run_id == first.run_id
    assert world.runs()[1].payload["continuation"] is True
    assert world.session().current_run_version == 2


async def test_sessions_without_external_id_are_always_new(world: World, sessions: Sessions) -> None:
    one, other = [await sessions.sessions.create(HOME, spec(name=None)) for _ in range(2)]
    assert one.session.id != other.session.id
    assert one.session.external_id is None


async def test_another_task_is_a_mismatch_and_changes_nothing(world: World, sessions: Sessions) -> None:
    await sessions.sessions.create(HOME, spec())
    before = world.session()
    with pytest.raises(TaskMismatchError) as caught:
        await sessions.sessions.create(HOME, spec("other", maxAttempts=9))
    assert (caught.value.task, caught.value.stored_task) == ("other", "echo")
    assert world.session() == before
    assert len(world.runs()) == 1


async def test_a_closed_session_is_not_created_again(world: World, sessions: Sessions) -> None:
    await sessions.sessions.create(HOME, spec())
    await sessions.sessions.close(HOME.id, NAME, "done")
    before = world.session()
    with pytest.raises(SessionClosedError) as caught:
        await sessions.sessions.create(HOME, spec(maxAttempts=9))
    assert caught.value.closed_reason == "done"
    assert world.session() == before


async def test_an_expired_session_is_not_created_again(world: World, sessions: Sessions, clock: ManualClock) -> None:
    minute = timedelta(minutes=1)
    await sessions.sessions.create(HOME, attrs.evolve(spec(), expires_at=clock.now() + minute))
    clock.advance(minute)
    with pytest.raises(SessionExpiredError):
        await sessions.sessions.create(HOME, attrs.evolve(spec(), expires_at=clock.now() + minute))


async def test_a_session_cannot_be_born_expired(world: World, sessions: Sessions, clock: ManualClock) -> None:
    with pytest.raises(InvalidError, match="expiresAt"):
        await sessions.sessions.create(HOME, attrs.evolve(spec(), expires_at=clock.now()))
    assert world.tables.sessions == {}


async def test_a_wrong_value_is_named_and_nothing_is_stored(world: World, sessions: Sessions) -> None:
    with pytest.raises(InvalidError, match="taskIdentifier"):
        await sessions.sessions.create(HOME, spec("t" * 129))
    assert world.tables.sessions == {}


async def test_many_creates_of_one_id_make_one_session_with_one_run(world: World, sessions: Sessions) -> None:
    made: list[Any] = []

    async def create() -> None:
        made.append(await sessions.sessions.create(HOME, spec()))

    async with anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(create)
    assert len({one.run_id for one in made}) == 1
    assert [one.is_cached for one in made].count(False) == 1
    assert len(world.runs()) == 1


async def test_an_engine_that_is_down_does_not_hinder_a_create(world: World, sessions: Sessions) -> None:
    world.engine.is_down = True
    await sessions.sessions.create(HOME, spec())
    assert world.runs()[0].dispatched_at is None
    assert [event.step for event in world.observer.of(SystemFailed)] == ["dispatch"]
    world.engine.is_down = False
    await say(sessions, "hello")
    assert world.runs()[0].dispatched_at is not None, "the next append dispatches it"


# --- Environments ---------------------------------------------------------------------------------


async def test_nothing_of_one_environment_exists_in_another(world: World, sessions: Sessions) -> None:
    home = await sessions.sessions.create(HOME, spec())
    for name in (NAME, home.session.id):
        with pytest.raises(SessionNotFoundError):
            await sessions.sessions.get(AWAY.id, name)
        assert await sessions.sessions.find_cached(AWAY.id, name) is None
        with pytest.raises(SessionNotFoundError):
            await sessions.sessions.close(AWAY.id, name)
        with pytest.raises(SessionNotFoundError):
            await sessions.sessions.end_and_continue(AWAY.id, name, home.run_id, "upgrade")
    with pytest.raises(RunNotFoundError):
        await sessions.sessions.get_run(AWAY.id, home.run_id)
    away = await sessions.sessions.create(AWAY, spec())
    assert not away.is_cached
    await say(sessions, "hello")
    assert (await world.log.tail(away.session.channel(Io.IN))).next_seq == 0


# --- Find, update, list ---------------------------------------------------------------------------


async def test_a_session_is_found_by_either_id_also_from_the_cache(sessions: Sessions) -> None:
    made = (await sessions.sessions.create(HOME, spec())).session
    for name in (NAME, made.id):
        assert (await sessions.sessions.get(HOME.id, name)).id == made.id
        found = await sessions.sessions.find_cached(HOME.id, name)
        assert found is not None
        assert found.id == made.id
    assert await sessions.sessions.find_cached(HOME.id, "nobody") is None


async def test_an_update_works_on_closed_sessions_too(sessions: Sessions) -> None:
    await sessions.sessions.create(HOME, spec())
    await sessions.sessions.close(HOME.id, NAME)
    updated = await sessions.sessions.update(HOME.id, NAME, SessionUpdate(tags=("a",)))
    assert updated.tags == ("a",)
    assert updated.metadata is None
    assert updated.closed_at is not None


async def test_a_list_walks_forward_and_back_and_filters_by_status(sessions: Sessions, clock: ManualClock) -> None:
    for number in range(7):
        await sessions.sessions.create(HOME, spec(name=f"s{number}"))
        clock.advance(timedelta(milliseconds=number % 2))
    await sessions.sessions.close(HOME.id, "s3")
    wanted = SessionFilter(environment_id=HOME.id, statuses=(SessionStatus.ACTIVE,))
    names: list[str] = []
    request: PageRequest | None = PageRequest(size=2)
    page = None
    while request is not None:
        page = await sessions.sessions.list_sessions(HOME, wanted, request)
        names += [session.external_id for session in page.items]
        request = PageRequest(size=2, cursor=page.next) if page.next else None
    assert names == ["s6", "s5", "s4", "s2", "s1", "s0"]
    assert page is not None
    back = PageRequest(size=2, cursor=page.previous, direction=Direction.BEFORE)
    before = await sessions.sessions.list_sessions(HOME, wanted, back)
    assert [session.external_id for session in before.items] == ["s4", "s2"]
    assert (await sessions.sessions.list_sessions(AWAY, attrs.evolve(wanted, environment_id=AWAY.id), back)).items == ()


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


# --- Close ----------------------------------------------------------------------------------------


async def test_the_first_reason_and_time_stay(world: World, sessions: Sessions, clock: ManualClock) -> None:
    await sessions.sessions.create(HOME, spec())
    first = await sessions.sessions.close(HOME.id, NAME, "first")
    clock.advance(timedelta(hours=1))
    again = await sessions.sessions.close(HOME.id, NAME, "second")
    assert again == first
    assert first.closed_reason == "first"
    assert first.sealed_at is not None
    endings = [record for record in await world.records(Io.OUT) if record.header(SESSION_CLOSED)]
    assert [record.header("session-closed-reason") for record in endings] == ["first"]


async def test_a_close_that_cannot_seal_in_time_is_not_acknowledged(world: World, sessions: Sessions) -> None:
    await sessions.sessions.create(HOME, spec())
    with pytest.raises(UnavailableError):
        await world.sessions(SlowAt("ChannelLog.set_guard", 60)).sessions.close(HOME.id, NAME, "x")
    assert world.session().sealed_at is None
    assert await sessions.sweep.sweep() == 1
    assert world.session().sealed_at is not None
    assert world.session().closed_reason == "x"


async def test_a_run_that_has_not_begun_when_its_session_is_closed_is_taken_from_its_engine(
    world: World, sessions: Sessions
) -> None:
    created = await sessions.sessions.create(HOME, spec())
    await sessions.sessions.close(HOME.id, NAME)
    assert [run.status for run in world.runs()] == [RunStatus.CANCELED]
    assert world.engine.withdrawn == [created.run_id]
    assert await world.ports().backlog.list_undispatched(world.clock.now() + timedelta(days=1), 10) == []


async def test_a_run_that_has_begun_ends_a_closed_session_by_itself(world: World, sessions: Sessions) -> None:
    await sessions.sessions.create(HOME, spec())
    await begin_run(world)
    await sessions.sessions.close(HOME.id, NAME)
    assert [run.status for run in world.runs()] == [RunStatus.EXECUTING]
    assert world.engine.withdrawn == []


async def test_an_engine_that_is_away_keeps_nobody_from_closing(world: World, sessions: Sessions) -> None:
    created = await sessions.sessions.create(HOME, spec())
    world.engine.is_down = True
    closed = await sessions.sessions.close(HOME.id, NAME)
    assert closed.sealed_at is not None
    assert [failure.step for failure in world.observer.of(SystemFailed)] == ["cancel"]
    world.engine.is_down = False
    assert await world.ports().runs.begin(created.run_id, 1) is None


async def test_a_run_of_an_expired_session_that_has_not_begun_is_ended_by_the_sweep(
    world: World, sessions: Sessions, clock: ManualClock
) -> None:
    expiring = attrs.evolve(spec(), expires_at=clock.now() + timedelta(hours=1))
    created = await sessions.sessions.create(HOME, expiring)
    clock.advance(timedelta(hours=1))
    await sessions.sweep.sweep()
    assert [run.status for run in world.runs()] == [RunStatus.CANCELED]
    assert world.engine.withdrawn == [created.run_id]


async def test_a_run_that_is_replaced_before_it_begins_is_taken_from_its_engine(
    world: World, sessions: Sessions
) -> None:
    created = await sessions.sessions.create(HOME, spec())
    handed = await sessions.sessions.end_and_continue(HOME.id, NAME, created.run_id, "manual")
    assert [run.status for run in world.runs()] == [RunStatus.CANCELED, RunStatus.PENDING]
    assert world.engine.withdrawn == [created.run_id]
    assert handed.swapped


async def test_a_run_closes_its_own_session_only_while_it_is_current(world: World, sessions: Sessions) -> None:
    created = await sessions.sessions.create(HOME, spec())
    run = await begin_run(world)
    with pytest.raises(StaleRunError):
        await sessions.sessions.close(HOME.id, NAME, calling_run=RunId("run_other"))
    with pytest.raises(StaleRunError):
        await sessions.sessions.close(HOME.id, NAME, calling_run=created.run_id, epoch=run.epoch - 1)
    assert world.session().closed_at is None
    closed = await sessions.sessions.close(HOME.id, NAME, "by run", calling_run=created.run_id, epoch=run.epoch)
    assert closed.closed_reason == "by run"


async def test_the_ending_carries_the_reason_of_the_row_whoever_seals(
    world: World, sessions: Sessions, clock: ManualClock
) -> None:
    minute = timedelta(minutes=1)
    await sessions.sessions.create(HOME, attrs.evolve(spec(), expires_at=clock.now() + minute))
    stale = world.session()
    await world.ports().sessions.close(HOME.id, stale.id, "the first reason")
    clock.advance(minute)
    with pytest.raises(SessionClosedError):
        await sessions.channels.append_text(stale, Io.IN, said("x"))
    (ending,) = [record for record in await world.records(Io.OUT) if record.header(SESSION_CLOSED)]
    assert ending.header("session-closed-reason") == "the first reason"


async def test_nothing_follows_the_ending_that_a_close_writes(world: World, sessions: Sessions) -> None:
    """A run that goes on writing is stopped before the ending, not between the ending and the seal."""
    await sessions.sessions.create(HOME, spec())
    run = await begin_run(world)
    session = world.session()

    class Eager(Tap):
        refused = 0

        async def after(self, call: str) -> None:
            if call == "ChannelLog.append":
                more = data_record("more", PartId("m"), dedupe=False)
                try:
                    await sessions.channels.append(session, Io.OUT, [more], epoch=run.epoch)
                except SessionClosedError:
                    self.refused += 1

    eager = Eager()
    await world.sessions(eager).sessions.close(HOME.id, NAME)
    assert eager.refused
    assert (await world.records(Io.OUT))[-1].header(SESSION_CLOSED) == "true"


async def test_the_sweep_seals_what_has_expired(world: World, sessions: Sessions, clock: ManualClock) -> None:
    minute = timedelta(minutes=1)
    await sessions.sessions.create(HOME, attrs.evolve(spec(), expires_at=clock.now() + minute))
    await say(sessions, "in time")
    clock.advance(minute)
    await sessions.sweep.sweep()
    with pytest.raises(SessionExpiredError) as caught:
        await say(sessions, "too late")
    assert caught.value.closed_reason == "expired"
    for io in Io:
        assert (await world.log.tail(world.session().channel(io))).guard.is_sealed
    assert (await world.records(Io.OUT))[-1].header("session-closed-reason") == "expired"
    assert world.session().closed_at is None


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


async def test_a_new_session_needs_nothing_but_its_task(sessions: Sessions) -> None:
    created = (await sessions.sessions.create(HOME, NewSession(task="echo"))).session
    assert (created.type, created.external_id, created.trigger_config) == ("chat.agent", None, TriggerConfig())


def test_an_external_id_is_trimmed() -> None:
    assert NewSession(task="echo", external_id=" chat 1 ").external_id == "chat 1"


@pytest.mark.parametrize("name", ["", "  ", "session_1", "x" * 257, "nul\x00"])
def test_an_external_id_that_breaks_a_rule_is_refused_before_anything_is_stored(name: str) -> None:
    with pytest.raises(InvalidError, match="externalId"):
        NewSession(task="echo", external_id=name)


async def test_a_list_of_nothing_in_particular_has_all_sessions_of_the_environment(sessions: Sessions) -> None:
    for number in range(3):
        await sessions.sessions.create(HOME, NewSession(task="echo", external_id=f"chat {number}"))
    await sessions.sessions.create(AWAY, NewSession(task="echo"))
    page = await sessions.sessions.list_sessions(HOME)
    assert {session.external_id for session in page.items} == {"chat 0", "chat 1", "chat 2"}
