"""What every backlog guarantees."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

from contract.makers import ENV_A, ENV_B, MILLISECOND, SECOND, START, following, initial, make_session
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import Holding, Progress, RunRecord
from sessions_core.domain.session import Session
from sessions_core.domain.status import ALIVE, RunStatus
from sessions_core.ports.backlog import Backlog
from sessions_core.ports.run_store import RunStore
from sessions_core.ports.session_store import SessionStore
from sessions_core.testing import ManualClock

FAR = START + timedelta(days=365)


async def store_new(store: SessionStore, session: Session) -> RunRecord:
    run = initial(session)
    await store.create(session, run)
    return run


async def fill(store: SessionStore, clock: ManualClock, names: str) -> list[RunRecord]:
    """Store a session for each letter, one a second, in two environments by turns."""
    runs: list[RunRecord] = []
    for name in names:
        environment = (ENV_A, ENV_B)[len(runs) % 2]
        runs.append(await store_new(store, make_session(name, at=clock.now(), environment=environment)))
        clock.advance(SECOND)
    return runs


def ids_of(items: list[RunRecord]) -> list[RunId]:
    return [item.id for item in items]


# --- undispatched ---


async def test_undispatched_runs_are_listed_oldest_first_over_all_environments(
    session_store: SessionStore, backlog: Backlog, clock: ManualClock
) -> None:
    runs = await fill(session_store, clock, "cab")
    assert await backlog.list_undispatched(FAR, 10) == runs
    assert await backlog.list_undispatched(FAR, 2) == runs[:2]


async def test_a_walk_over_undispatched_runs_goes_on_behind_the_last_one(
    session_store: SessionStore, backlog: Backlog, clock: ManualClock
) -> None:
    runs = await fill(session_store, clock, "cab")
    for name in "xzy":  # all at once: their ids decide
        runs.append(await store_new(session_store, make_session(name, at=clock.now())))
    runs[3:] = sorted(runs[3:], key=lambda run: run.id)
    seen: list[RunRecord] = []
    while page := await backlog.list_undispatched(FAR, 2, after=seen[-1] if seen else None):
        seen += page
    assert seen == runs
    assert await backlog.list_undispatched(runs[2].created_at, 10, after=runs[0]) == runs[1:2]


async def test_only_runs_created_before_are_undispatched(
    session_store: SessionStore, backlog: Backlog, clock: ManualClock
) -> None:
    runs = await fill(session_store, clock, "ab")
    assert await backlog.list_undispatched(runs[1].created_at, 10) == runs[:1]
    assert await backlog.list_undispatched(runs[1].created_at + MILLISECOND, 10) == runs


async def test_dispatched_executing_and_ended_runs_are_not_undispatched(
    session_store: SessionStore, run_store: RunStore, backlog: Backlog, clock: ManualClock
) -> None:
    waiting, dispatched, executing, ended = await fill(session_store, clock, "abcd")
    await run_store.mark_dispatched(dispatched.id)
    await run_store.begin(executing.id, 1)
    await run_store.finish(Holding(ended.id, 0), RunStatus.CANCELED)
    assert ids_of(await backlog.list_undispatched(FAR, 10)) == [waiting.id]


async def test_a_delayed_run_is_undispatched_once_it_is_due(
    session_store: SessionStore, backlog: Backlog, run_store: RunStore, clock: ManualClock
) -> None:
    session = make_session()
    await run_store.mark_dispatched((await store_new(session_store, session)).id)
    stored = attrs.evolve(session, current_run_version=1)
    run = following(stored, dispatch_after=START + SECOND)
    await session_store.claim_run(run, expected_version=1)
    clock.advance(SECOND - MILLISECOND)
    assert await backlog.list_undispatched(FAR, 10) == []
    clock.advance(MILLISECOND)
    assert await backlog.list_undispatched(FAR, 10) == [run]


async def test_forgotten_dispatches_are_undispatched_again(
    session_store: SessionStore, run_store: RunStore, backlog: Backlog, clock: ManualClock
) -> None:
    runs = await fill(session_store, clock, "abcde")
    fresh, *others = runs
    for run in others:
        await run_store.mark_dispatched(run.id)
    *waiting, executing, ended = others
    await run_store.begin(executing.id, 1)
    await run_store.finish(Holding(ended.id, 0), RunStatus.CANCELED)
    assert await backlog.forget_dispatches() == len(waiting)
    assert await backlog.list_undispatched(FAR, 10) == [fresh, *waiting]
    assert await backlog.forget_dispatches() == 0
    assert (await run_store.get(executing.id)).dispatched_at is not None


# --- stalled ---


async def test_executing_runs_without_a_recent_heartbeat_are_stalled_longest_first(
    session_store: SessionStore, run_store: RunStore, backlog: Backlog, clock: ManualClock
) -> None:
    first, second, beating, pending, ended = await fill(session_store, clock, "abcde")
    begun = []
    for run in (second, first, beating, ended):
        begun.append(await run_store.begin(run.id, 1))
        clock.advance(SECOND)
    await run_store.finish(Holding(ended.id, 1), RunStatus.CRASHED)
    before = clock.now()
    await run_store.beat([Holding(beating.id, 1)])
    assert await backlog.list_stalled(before, 10) == begun[:2]
    assert await backlog.list_stalled(before, 1) == begun[:1]
    assert pending.id not in ids_of(await backlog.list_stalled(FAR, 10))


async def test_a_heartbeat_at_the_limit_is_recent(
    session_store: SessionStore, run_store: RunStore, backlog: Backlog
) -> None:
    run = await store_new(session_store, make_session())
    begun = await run_store.begin(run.id, 1)
    assert await backlog.list_stalled(START, 10) == []
    assert await backlog.list_stalled(START + timedelta(microseconds=1), 10) == [begun]


# --- unsettled ---


@pytest.mark.parametrize("status", sorted(set(RunStatus) - ALIVE))
async def test_an_ended_run_is_unsettled_until_it_is_settled(
    session_store: SessionStore, run_store: RunStore, backlog: Backlog, clock: ManualClock, status: RunStatus
) -> None:
    run = await store_new(session_store, make_session())
    assert await backlog.list_unsettled(10) == []
    await run_store.finish(Holding(run.id, 0), status)
    ended = await run_store.get(run.id)
    assert await backlog.list_unsettled(10) == [ended]
    clock.advance(SECOND)
    await backlog.settle(run.id, None)
    assert await backlog.list_unsettled(10) == []
    assert await run_store.get(run.id) == attrs.evolve(ended, settled_at=clock.now())


async def test_unsettled_runs_are_listed_by_their_end(
    session_store: SessionStore, run_store: RunStore, backlog: Backlog, clock: ManualClock
) -> None:
    runs = await fill(session_store, clock, "abc")
    for run in (runs[2], runs[0], runs[1]):
        await run_store.finish(Holding(run.id, 0), RunStatus.CANCELED)
        clock.advance(SECOND)
    assert ids_of(await backlog.list_unsettled(10)) == [runs[2].id, runs[0].id, runs[1].id]
    assert ids_of(await backlog.list_unsettled(1)) == [runs[2].id]


@pytest.mark.parametrize("told", [None, Progress(1, 2)])
async def test_settling_sets_the_progress_if_one_is_given(
    session_store: SessionStore, run_store: RunStore, backlog: Backlog, told: Progress | None
) -> None:
    run = await store_new(session_store, make_session())
    await run_store.finish(Holding(run.id, 0), RunStatus.CANCELED, end=told)
    await backlog.settle(run.id, Progress(5, 7))
    assert (await run_store.get(run.id)).end == Progress(5, 7)


async def test_settling_without_a_progress_keeps_the_one_the_run_told(
    session_store: SessionStore, run_store: RunStore, backlog: Backlog
) -> None:
    run = await store_new(session_store, make_session())
    await run_store.finish(Holding(run.id, 0), RunStatus.CANCELED, end=Progress(1, 2))
    await backlog.settle(run.id, None)
    assert (await run_store.get(run.id)).end == Progress(1, 2)


async def test_a_settled_run_stays_as_it_is(
    session_store: SessionStore, run_store: RunStore, backlog: Backlog, clock: ManualClock
) -> None:
    run = await store_new(session_store, make_session())
    await run_store.finish(Holding(run.id, 0), RunStatus.CANCELED)
    await backlog.settle(run.id, Progress(1, 2))
    settled = await run_store.get(run.id)
    clock.advance(SECOND)
    await backlog.settle(run.id, Progress(5, 7))
    assert await run_store.get(run.id) == settled


# --- unsealed ---


async def test_closed_and_expired_sessions_are_unsealed_until_they_are_sealed(
    session_store: SessionStore, backlog: Backlog, clock: ManualClock
) -> None:
    expired = make_session("expired", expires_at=START + SECOND)
    closed = make_session("closed", expires_at=START + 4 * SECOND, environment=ENV_B)
    lasting = make_session("lasting", expires_at=START + 3 * SECOND)
    for session in (make_session("open"), lasting, closed, expired):
        await store_new(session_store, session)
    assert await backlog.list_unsealed(10) == []
    clock.advance(SECOND)
    assert [session.id for session in await backlog.list_unsealed(10)] == [expired.id]
    clock.advance(SECOND)
    await session_store.close(ENV_B.id, closed.id, None)
    assert [session.id for session in await backlog.list_unsealed(10)] == [expired.id, closed.id]
    assert [session.id for session in await backlog.list_unsealed(1)] == [expired.id]
    await session_store.mark_sealed(expired.id)
    assert [session.id for session in await backlog.list_unsealed(10)] == [closed.id]
    await session_store.mark_sealed(closed.id)
    assert await backlog.list_unsealed(10) == []


async def test_a_session_that_expired_and_was_closed_then_is_listed_once(
    session_store: SessionStore, backlog: Backlog, clock: ManualClock
) -> None:
    session = make_session(expires_at=START + SECOND)
    await store_new(session_store, session)
    clock.advance(2 * SECOND)
    closed = await session_store.close(ENV_A.id, session.id, None)
    assert await backlog.list_unsealed(10) == [closed]
