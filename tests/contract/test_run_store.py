"""What every run store guarantees."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import attrs
import pytest

from contract.makers import ENV_A, ENV_B, SECOND, START, Call, at_once, following, initial, make_session
from sessions_core.domain.claim import Claim
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import Holding, Progress, RunRecord
from sessions_core.domain.session import Session, SessionUpdate
from sessions_core.domain.status import ALIVE, RunStatus
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.errors import RunNotFoundError
from sessions_core.ports.run_store import RunStore
from sessions_core.ports.session_store import SessionStore
from sessions_core.testing import ManualClock

UNKNOWN = RunId("run_unknown")
FINAL = sorted(set(RunStatus) - ALIVE)


@pytest.fixture
async def session(session_store: SessionStore) -> Session:
    """A stored session whose first run has not begun; it expires in an hour."""
    session = make_session(expires_at=START + timedelta(hours=1))
    return (await session_store.create(session, initial(session))).session


@pytest.fixture
def run(session: Session) -> RunRecord:
    """The first run of the session, as it is stored."""
    return initial(make_session(expires_at=session.expires_at))


async def replace(store: SessionStore, session: Session) -> RunRecord:
    run = following(session)
    assert await store.claim_run(run, expected_version=session.current_run_version) is Claim.WON
    return run


async def epoch_of(store: SessionStore, session: Session) -> int:
    found = await store.find(session.environment.id, session.id)
    assert found is not None
    return found.epoch


# --- find and get ---


async def test_a_run_is_found_in_its_environment_only(run_store: RunStore, run: RunRecord) -> None:
    assert await run_store.find(ENV_A.id, run.id) == run
    assert await run_store.find(ENV_B.id, run.id) is None
    assert await run_store.find(ENV_A.id, UNKNOWN) is None


async def test_a_run_is_got_by_its_id_alone(run_store: RunStore, run: RunRecord) -> None:
    assert await run_store.get(run.id) == run
    with pytest.raises(RunNotFoundError):
        await run_store.get(UNKNOWN)


async def test_a_run_comes_back_with_all_its_members(session_store: SessionStore, run_store: RunStore) -> None:
    config = TriggerConfig(
        {"basePayload": {"ä": ["\U0001f980", None, 1.5]}, "maxAttempts": 2, "idleTimeoutInSeconds": 5}
    )
    session = make_session("rich", external_id="mine", trigger_config=config, task="täsk")
    stored = (await session_store.create(session, initial(session))).session
    first = attrs.evolve(initial(session), end=Progress(12, 34))
    run = following(stored, previous=first, failures=3, dispatch_after=START + SECOND)
    await session_store.claim_run(run, expected_version=1)
    assert await run_store.get(run.id) == run
    assert (run.status, run.start, run.key) == (RunStatus.DELAYED, Progress(12, 34), "mine")


async def test_a_dispatched_run_says_when(run_store: RunStore, run: RunRecord, clock: ManualClock) -> None:
    clock.advance(SECOND)
    await run_store.mark_dispatched(run.id)
    assert await run_store.get(run.id) == attrs.evolve(run, dispatched_at=clock.now())


# --- begin ---


async def test_a_run_that_begins_takes_an_epoch_and_executes(
    session_store: SessionStore, run_store: RunStore, session: Session, run: RunRecord, clock: ManualClock
) -> None:
    clock.advance(SECOND)
    begun = await run_store.begin(run.id, 1)
    assert begun == attrs.evolve(
        run, status=RunStatus.EXECUTING, attempt=1, epoch=1, started_at=clock.now(), heartbeat_at=clock.now()
    )
    assert await run_store.get(run.id) == begun
    assert await epoch_of(session_store, session) == 1


async def test_every_attempt_takes_another_epoch(
    session_store: SessionStore, run_store: RunStore, session: Session, run: RunRecord, clock: ManualClock
) -> None:
    await run_store.begin(run.id, 1)
    clock.advance(SECOND)
    again = await run_store.begin(run.id, 2)
    assert again is not None
    assert (again.attempt, again.epoch) == (2, 2)
    assert (again.started_at, again.heartbeat_at) == (START, clock.now())
    assert await epoch_of(session_store, session) == 2


async def test_epochs_go_on_over_the_runs_of_a_session(
    session_store: SessionStore, run_store: RunStore, session: Session, run: RunRecord
) -> None:
    await run_store.begin(run.id, 1)
    next_run = await replace(session_store, session)
    begun = await run_store.begin(next_run.id, 1)
    assert begun is not None
    assert (begun.attempt, begun.epoch) == (1, 2)


async def test_a_delayed_run_may_begin(session_store: SessionStore, run_store: RunStore, session: Session) -> None:
    run = following(session, dispatch_after=START)
    await session_store.claim_run(run, expected_version=1)
    begun = await run_store.begin(run.id, 1)
    assert begun is not None
    assert begun.status is RunStatus.EXECUTING


@pytest.mark.parametrize("attempt", [-1, 0, 2, 3])
async def test_only_the_next_attempt_begins(run_store: RunStore, run: RunRecord, attempt: int) -> None:
    assert await run_store.begin(run.id, attempt) is None
    assert await run_store.get(run.id) == run


async def test_an_attempt_does_not_begin_twice(
    session_store: SessionStore, run_store: RunStore, session: Session, run: RunRecord
) -> None:
    begun = await run_store.begin(run.id, 1)
    assert await run_store.begin(run.id, 1) is None
    assert await run_store.get(run.id) == begun
    assert await epoch_of(session_store, session) == 1


async def test_of_30_concurrent_begins_of_one_attempt_one_begins(
    session_store: SessionStore, run_store: RunStore, session: Session, run: RunRecord
) -> None:
    answers = await at_once([partial(run_store.begin, run.id, 1) for _ in range(30)])
    (begun,) = (answer for answer in answers if answer is not None)
    assert (begun.attempt, begun.epoch) == (1, 1)
    assert await epoch_of(session_store, session) == 1


async def test_a_replaced_run_does_not_begin(
    session_store: SessionStore, run_store: RunStore, session: Session, run: RunRecord
) -> None:
    await replace(session_store, session)
    assert await run_store.begin(run.id, 1) is None
    assert await run_store.get(run.id) == run
    assert await epoch_of(session_store, session) == 0


@pytest.mark.parametrize("status", FINAL)
async def test_an_ended_run_does_not_begin_again(run_store: RunStore, run: RunRecord, status: RunStatus) -> None:
    await run_store.finish(Holding(run.id, 0), status)
    assert await run_store.begin(run.id, 1) is None
    assert (await run_store.get(run.id)).status is status


async def test_a_run_of_a_closed_session_does_not_begin(
    session_store: SessionStore, run_store: RunStore, session: Session, run: RunRecord
) -> None:
    await session_store.close(ENV_A.id, session.id, None)
    assert await run_store.begin(run.id, 1) is None
    assert await run_store.get(run.id) == run
    assert await epoch_of(session_store, session) == 0


async def test_a_run_of_an_expired_session_does_not_begin(
    run_store: RunStore, session: Session, run: RunRecord, clock: ManualClock
) -> None:
    assert session.expires_at is not None
    clock.moment = session.expires_at
    assert await run_store.begin(run.id, 1) is None
    assert await run_store.get(run.id) == run


async def test_an_unknown_run_cannot_begin(run_store: RunStore) -> None:
    with pytest.raises(RunNotFoundError):
        await run_store.begin(UNKNOWN, 1)


async def test_a_begin_and_a_claim_that_race_never_give_the_old_run_the_later_epoch(
    session_store: SessionStore, run_store: RunStore
) -> None:
    for number in range(10):
        session = make_session(f"n{number}")
        stored = (await session_store.create(session, initial(session))).session
        calls: list[Call] = [
            partial(run_store.begin, initial(session).id, 1),
            partial(replace, session_store, stored),
        ]
        begun, successor = await at_once(calls)
        after = await run_store.begin(successor.id, 1)
        assert after is not None
        assert after.epoch == (1 if begun is None else 2)


async def test_a_begin_does_not_undo_a_concurrent_update(
    session_store: SessionStore, run_store: RunStore, session: Session, run: RunRecord
) -> None:
    calls: list[Call] = [
        partial(session_store.update, ENV_A.id, session.id, SessionUpdate(tags=("t",))),
        partial(run_store.begin, run.id, 1),
        partial(session_store.update, ENV_A.id, session.id, SessionUpdate(metadata={"m": 1})),
    ]
    await at_once(calls)
    found = await session_store.find(ENV_A.id, session.id)
    assert found is not None
    assert (found.tags, found.metadata, found.epoch) == (("t",), {"m": 1}, 1)


# --- beat ---


async def test_a_beat_refreshes_the_heartbeat(run_store: RunStore, run: RunRecord, clock: ManualClock) -> None:
    begun = await run_store.begin(run.id, 1)
    assert begun is not None
    clock.advance(SECOND)
    assert await run_store.beat([Holding(run.id, 1)]) == frozenset()
    assert await run_store.get(run.id) == attrs.evolve(begun, heartbeat_at=clock.now())


async def test_a_beat_of_nothing_stops_nobody(run_store: RunStore) -> None:
    assert await run_store.beat([]) == frozenset()


async def test_holders_of_runs_that_are_over_must_stop_and_others_not(
    session_store: SessionStore, run_store: RunStore, clock: ManualClock
) -> None:
    runs = {}
    for name in ("replaced", "again", "ended", "fine"):
        session = make_session(name)
        stored = (await session_store.create(session, initial(session))).session
        runs[name] = await run_store.begin(initial(session).id, 1)
        if name == "replaced":
            await replace(session_store, stored)
    ids = {name: run.id for name, run in runs.items() if run is not None} | {"gone": UNKNOWN}
    await run_store.begin(ids["again"], 2)
    await run_store.finish(Holding(ids["ended"], 1), RunStatus.CRASHED)
    ended = await run_store.get(ids["ended"])
    clock.advance(SECOND)
    lost = await run_store.beat([Holding(run_id, 1) for run_id in ids.values()])
    assert lost == {ids[name] for name in ("replaced", "again", "ended", "gone")}
    assert (await run_store.get(ids["fine"])).heartbeat_at == clock.now()
    assert (await run_store.get(ids["again"])).heartbeat_at == START
    assert await run_store.get(ids["ended"]) == ended


async def test_a_beat_touches_no_run_that_is_not_held(
    session_store: SessionStore, run_store: RunStore, run: RunRecord, clock: ManualClock
) -> None:
    other = make_session("other")
    await session_store.create(other, initial(other))
    await run_store.begin(initial(other).id, 1)
    await run_store.begin(run.id, 1)
    clock.advance(SECOND)
    await run_store.beat([Holding(run.id, 1)])
    assert (await run_store.get(initial(other).id)).heartbeat_at == START


# --- finish ---


@pytest.mark.parametrize("status", FINAL)
@pytest.mark.parametrize("outcome", [{}, {"end": Progress(3, 9)}, {"error": "ValueError: ü"}], ids=str)
async def test_the_end_of_an_attempt_is_recorded(
    run_store: RunStore, run: RunRecord, clock: ManualClock, status: RunStatus, outcome: dict[str, Any]
) -> None:
    begun = await run_store.begin(run.id, 1)
    assert begun is not None
    clock.advance(SECOND)
    assert await run_store.finish(Holding(run.id, 1), status, **outcome)
    assert await run_store.get(run.id) == attrs.evolve(begun, status=status, ended_at=clock.now(), **outcome)


async def test_a_run_that_has_not_begun_can_be_ended(run_store: RunStore, run: RunRecord) -> None:
    assert await run_store.finish(Holding(run.id, 0), RunStatus.CANCELED)
    assert (await run_store.get(run.id)).status is RunStatus.CANCELED


async def test_a_replaced_run_can_be_ended(
    session_store: SessionStore, run_store: RunStore, session: Session, run: RunRecord
) -> None:
    await run_store.begin(run.id, 1)
    await replace(session_store, session)
    assert await run_store.finish(Holding(run.id, 1), RunStatus.CANCELED)


@pytest.mark.parametrize("attempt", [0, 1, 3])
async def test_only_the_latest_attempt_can_be_ended(run_store: RunStore, run: RunRecord, attempt: int) -> None:
    await run_store.begin(run.id, 1)
    begun = await run_store.begin(run.id, 2)
    assert not await run_store.finish(Holding(run.id, attempt), RunStatus.CRASHED, error="late")
    assert await run_store.get(run.id) == begun


async def test_an_end_is_final(run_store: RunStore, run: RunRecord, clock: ManualClock) -> None:
    await run_store.begin(run.id, 1)
    await run_store.finish(Holding(run.id, 1), RunStatus.COMPLETED_SUCCESSFULLY, end=Progress(1, 2))
    ended = await run_store.get(run.id)
    clock.advance(SECOND)
    assert not await run_store.finish(Holding(run.id, 1), RunStatus.CRASHED, error="no heartbeat")
    assert await run_store.get(run.id) == ended


async def test_an_attempt_that_has_beaten_since_is_not_ended(
    run_store: RunStore, run: RunRecord, clock: ManualClock
) -> None:
    begun = await run_store.begin(run.id, 1)
    assert begun is not None
    clock.advance(SECOND)
    await run_store.beat([Holding(run.id, 1)])
    beaten = await run_store.get(run.id)
    assert not await run_store.finish(Holding(run.id, 1), RunStatus.CRASHED, last_beat=begun.heartbeat_at)
    assert await run_store.get(run.id) == beaten
    assert await run_store.finish(Holding(run.id, 1), RunStatus.CRASHED, last_beat=beaten.heartbeat_at)


async def test_an_unknown_run_cannot_be_ended(run_store: RunStore) -> None:
    assert not await run_store.finish(Holding(UNKNOWN, 1), RunStatus.CRASHED)


async def test_of_20_concurrent_ends_one_counts(run_store: RunStore, run: RunRecord) -> None:
    await run_store.begin(run.id, 1)
    holding = Holding(run.id, 1)
    done = await at_once([partial(run_store.finish, holding, RunStatus.CRASHED, error=f"{n}") for n in range(20)])
    assert sorted(done) == [False] * 19 + [True]
    assert (await run_store.get(run.id)).error == str(done.index(True))
