"""What every session store guarantees about runs: of those that claim a session one wins, and history tells of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import pytest

from contract.makers import ENV_A, ENV_B, SECOND, START, Call, at_once, following, initial, make_session
from contract.stored import StoredRuns, close, let_expire, store_new
from sessions_core.domain.claim import Claim
from sessions_core.domain.ids import SessionId
from sessions_core.domain.run import Progress
from sessions_core.domain.session import Session
from sessions_core.ports.run_store import RunStore
from sessions_core.ports.session_store import SessionStore
from sessions_core.testing import ManualClock

# --- claim ---


async def test_a_claim_makes_the_run_current_and_stores_it_with_its_history(
    session_store: SessionStore, run_store: RunStore, clock: ManualClock
) -> None:
    session = await store_new(session_store, make_session())
    clock.advance(SECOND)
    run = following(
        session, now=clock.now(), failures=2, dispatch_after=clock.now() + SECOND, previous=initial(session)
    )
    assert await session_store.claim_run(run, expected_version=1) is Claim.WON
    found = await session_store.find(ENV_A.id, session.id)
    assert found is not None
    assert (found.current_run_id, found.current_run_version) == (run.id, 2)
    assert await run_store.get(run.id) == run
    lines = await session_store.list_runs(ENV_A.id, session.id, 10)
    assert [(line.run_id, line.reason) for line in lines] == [
        (run.id, "continuation"),
        (session.current_run_id, "initial"),
    ]
    assert [line.triggered_at for line in lines] == [START + SECOND, START]


async def test_a_run_goes_on_where_its_predecessor_stood(session_store: SessionStore, run_store: RunStore) -> None:
    session = await store_new(session_store, make_session())
    previous = attrs.evolve(initial(session), end=Progress(41, 7))
    run = following(session, previous=previous)
    await session_store.claim_run(run, expected_version=1)
    assert (await run_store.get(run.id)).start == Progress(41, 7)


async def test_of_50_concurrent_claims_one_wins_and_the_losers_store_nothing(
    session_store: SessionStore, stored_runs: StoredRuns
) -> None:
    session = await store_new(session_store, make_session())
    runs = [following(session, f"n{n}") for n in range(50)]
    claims = await at_once([partial(session_store.claim_run, run, expected_version=1) for run in runs])
    (winner,) = (run for run, claim in zip(runs, claims, strict=True) if claim is Claim.WON)
    found = await session_store.find(ENV_A.id, session.id)
    assert found is not None
    assert (found.current_run_id, found.current_run_version) == (winner.id, 2)
    assert stored_runs() == {session.current_run_id, winner.id}
    lines = await session_store.list_runs(ENV_A.id, session.id, 100)
    assert [line.run_id for line in lines] == [winner.id, session.current_run_id]


async def _assert_lost(
    store: SessionStore, stored_runs: StoredRuns, session: Session, *, version: int, **arguments: Any
) -> None:
    run = following(attrs.evolve(session, current_run_version=version))
    before = await store.find(ENV_A.id, session.id), stored_runs()
    assert await store.claim_run(run, expected_version=version, **arguments) is Claim.LOST
    assert (await store.find(ENV_A.id, session.id), stored_runs()) == before
    assert len(await store.list_runs(ENV_A.id, session.id, 10)) == 1


@pytest.mark.parametrize("version", [0, 2])
async def test_a_claim_with_another_version_is_lost(
    session_store: SessionStore, stored_runs: StoredRuns, version: int
) -> None:
    session = await store_new(session_store, make_session())
    await _assert_lost(session_store, stored_runs, session, version=version)


async def test_a_claim_that_expects_another_run_is_lost(session_store: SessionStore, stored_runs: StoredRuns) -> None:
    session = await store_new(session_store, make_session())
    await _assert_lost(session_store, stored_runs, session, version=1, expected_run="run_other")


async def test_a_claim_that_expects_the_current_run_wins(session_store: SessionStore) -> None:
    session = await store_new(session_store, make_session())
    run = following(session)
    claim = await session_store.claim_run(run, expected_version=1, expected_run=session.current_run_id)
    assert claim is Claim.WON


@pytest.mark.parametrize("prepare", [close, let_expire], ids=["closed", "expired"])
async def test_a_session_that_is_over_is_not_claimed(
    session_store: SessionStore, stored_runs: StoredRuns, clock: ManualClock, prepare: Any
) -> None:
    session = await store_new(session_store, make_session(expires_at=START + SECOND))
    await prepare(session_store, clock, session)
    await _assert_lost(session_store, stored_runs, session, version=1)


async def test_a_session_of_another_environment_is_not_claimed(
    session_store: SessionStore, stored_runs: StoredRuns
) -> None:
    session = await store_new(session_store, make_session())
    run = attrs.evolve(following(session), environment=ENV_B)
    assert await session_store.claim_run(run, expected_version=1) is Claim.LOST
    assert await session_store.find(ENV_A.id, session.id) == session
    assert stored_runs() == {session.current_run_id}


async def test_a_close_and_a_claim_that_race_leave_no_doubt(session_store: SessionStore) -> None:
    for number in range(10):
        session = await store_new(session_store, make_session(f"n{number}"))
        run = following(session)
        calls: list[Call] = [
            partial(session_store.close, ENV_A.id, session.id, None),
            partial(session_store.claim_run, run, expected_version=1),
        ]
        _, claim = await at_once(calls)
        found = await session_store.find(ENV_A.id, session.id)
        assert found is not None
        assert found.closed_at is not None
        assert (found.current_run_id == run.id) == (claim is Claim.WON)


# --- history ---


async def test_the_history_is_newest_first_and_limited(session_store: SessionStore) -> None:
    session = await store_new(session_store, make_session())
    for version in range(1, 5):
        run = following(attrs.evolve(session, current_run_version=version), f"n{version}")
        await session_store.claim_run(run, expected_version=version)
    lines = await session_store.list_runs(ENV_A.id, session.id, 3)
    assert [line.run_id for line in lines] == [f"run_n{n}_of_{session.id}" for n in (4, 3, 2)]


async def test_another_environment_sees_no_history(session_store: SessionStore) -> None:
    session = await store_new(session_store, make_session())
    assert await session_store.list_runs(ENV_B.id, session.id, 10) == []
    assert await session_store.list_runs(ENV_A.id, SessionId("session_unknown"), 10) == []
