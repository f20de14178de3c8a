"""What every session store guarantees about sessions: created once, found, changed, closed."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import attrs
import pytest

from contract.makers import ENV_A, ENV_B, MILLISECOND, SECOND, START, Call, at_once, following, initial, make_session
from contract.stored import StoredRuns, close, let_expire, store_new
from sessions_core.domain.ids import SessionId
from sessions_core.domain.session import Session, SessionUpdate
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.errors import SessionNotFoundError
from sessions_core.ports.run_store import RunStore
from sessions_core.ports.session_store import SessionStore
from sessions_core.testing import ManualClock

OTHER_CONFIG = TriggerConfig({"basePayload": {"n": 2}, "tags": ["x"], "unknown": {"kept": None}})
RICH_VALUES: dict[str, Any] = {
    "type": "typé \U0001f980",
    "task": "täsk",
    "trigger_config": OTHER_CONFIG,
    "tags": ("b", "a", "ünï", "b"),
    "metadata": {"a": [1, 2.5, None, True, {"b": "\U0001f980"}], "": {}, "1e400": 10**20},
    "expires_at": START + timedelta(days=1),
    "is_test": True,
}


# --- create ---


@pytest.mark.parametrize("external_id", [None, "mine"])
@pytest.mark.parametrize("members", [{}, RICH_VALUES], ids=["plain", "rich"])
async def test_a_new_session_comes_back_as_it_was_given_with_its_first_run_claimed(
    session_store: SessionStore, external_id: str | None, members: dict[str, Any]
) -> None:
    session = make_session(external_id=external_id, **members)
    run = initial(session)
    creation = await session_store.create(session, run)
    expected = attrs.evolve(session, current_run_id=run.id, current_run_version=1)
    assert creation.is_new
    assert creation.refreshed
    assert creation.session == expected
    assert await session_store.find(ENV_A.id, session.id) == expected


async def test_a_new_session_is_stored_together_with_its_run_and_history(
    session_store: SessionStore, run_store: RunStore
) -> None:
    session = make_session()
    run = initial(session)
    await session_store.create(session, run)
    assert await run_store.get(run.id) == run
    (line,) = await session_store.list_runs(ENV_A.id, session.id, 10)
    assert (line.session_id, line.run_id, line.reason) == (session.id, run.id, "initial")
    assert line.triggered_at == START


@pytest.mark.parametrize("metadata", [None, {}])
async def test_missing_metadata_and_empty_metadata_are_told_apart(
    session_store: SessionStore, metadata: dict[str, Any] | None
) -> None:
    stored = await store_new(session_store, make_session(metadata=metadata))
    assert stored.metadata == metadata


async def test_sessions_without_external_id_are_always_new(session_store: SessionStore) -> None:
    first, second = make_session("one"), make_session("two")
    assert (await session_store.create(first, initial(first))).is_new
    assert (await session_store.create(second, initial(second))).is_new


async def test_of_100_concurrent_creates_with_one_external_id_exactly_one_is_new(
    session_store: SessionStore, stored_runs: StoredRuns
) -> None:
    sessions = [make_session(f"n{n}", external_id="mine") for n in range(100)]
    creations = await at_once([partial(session_store.create, session, initial(session)) for session in sessions])
    (winner,) = (creation for creation in creations if creation.is_new)
    assert {creation.session.id for creation in creations} == {winner.session.id}
    assert all(creation.refreshed for creation in creations)
    assert stored_runs() == {initial(winner.session).id}
    losers = {session.id for session in sessions} - {winner.session.id}
    assert await session_store.find_many(ENV_A.id, losers) == []


async def test_creating_again_replaces_the_trigger_config_and_nothing_else(
    session_store: SessionStore, stored_runs: StoredRuns, clock: ManualClock
) -> None:
    old = await store_new(session_store, make_session("old", external_id="mine", tags=("kept",), metadata={"kept": 1}))
    clock.advance(SECOND)
    new = make_session("new", external_id="mine", at=clock.now(), **(RICH_VALUES | {"task": old.task}))
    creation = await session_store.create(new, initial(new))
    assert not creation.is_new
    assert creation.refreshed
    assert creation.session == attrs.evolve(old, trigger_config=OTHER_CONFIG, updated_at=clock.now())
    assert await session_store.find(ENV_A.id, old.id) == creation.session
    assert await session_store.find(ENV_A.id, new.id) is None
    assert stored_runs() == {old.current_run_id}
    assert len(await session_store.list_runs(ENV_A.id, old.id, 10)) == 1


async def _leave(_: SessionStore, __: ManualClock, session: Session) -> Session:
    return session


@pytest.mark.parametrize(
    ("prepare", "task"),
    [(close, "echo"), (let_expire, "echo"), (_leave, "another")],
    ids=["closed", "expired", "of another task"],
)
async def test_creating_again_writes_nothing_if_the_session_is(
    session_store: SessionStore, stored_runs: StoredRuns, clock: ManualClock, prepare: Any, task: str
) -> None:
    old = await store_new(session_store, make_session("old", external_id="mine", expires_at=START + SECOND))
    stored = await prepare(session_store, clock, old)
    new = make_session("new", external_id="mine", at=clock.now(), task=task, trigger_config=OTHER_CONFIG)
    creation = await session_store.create(new, initial(new))
    assert not creation.is_new
    assert not creation.refreshed
    assert creation.session == stored
    assert await session_store.find(ENV_A.id, old.id) == stored
    assert stored_runs() == {old.current_run_id}


async def test_an_unexpired_session_is_refreshed_until_its_last_millisecond(
    session_store: SessionStore, clock: ManualClock
) -> None:
    await store_new(session_store, make_session("old", external_id="mine", expires_at=START + SECOND))
    clock.advance(SECOND - MILLISECOND)
    new = make_session("new", external_id="mine", at=clock.now())
    assert (await session_store.create(new, initial(new))).refreshed


async def test_external_ids_belong_to_their_environment(session_store: SessionStore) -> None:
    mine = make_session("a", external_id="mine", environment=ENV_A)
    yours = make_session("b", external_id="mine", environment=ENV_B)
    assert (await session_store.create(mine, initial(mine))).is_new
    assert (await session_store.create(yours, initial(yours))).is_new
    found = [await session_store.find(env.id, "mine") for env in (ENV_A, ENV_B)]
    assert [session and session.id for session in found] == [mine.id, yours.id]


# --- find ---


async def test_a_session_is_found_by_either_id(session_store: SessionStore) -> None:
    session = await store_new(session_store, make_session(external_id="mine"))
    assert await session_store.find(ENV_A.id, session.id) == session
    assert await session_store.find(ENV_A.id, "mine") == session


async def test_another_environment_does_not_find_it(session_store: SessionStore) -> None:
    session = await store_new(session_store, make_session(external_id="mine"))
    assert await session_store.find(ENV_B.id, session.id) is None
    assert await session_store.find(ENV_B.id, "mine") is None
    assert await session_store.find_many(ENV_B.id, [session.id]) == []


@pytest.mark.parametrize(
    "name", ["session_two", "two", "MINE", "mine ", "min", "min%", "_ine", "", "\x00", "\ud800", "m" * 5000]
)
async def test_a_name_that_nobody_has_finds_nothing(session_store: SessionStore, name: str) -> None:
    await store_new(session_store, make_session(external_id="mine"))
    assert await session_store.find(ENV_A.id, name) is None


async def test_external_ids_may_be_any_text(session_store: SessionStore) -> None:
    names = ["a", "A", "a b", "ä", "a\u0308", "\U0001f980", "run_x", "Session_x", "x" * 256]
    for number, name in enumerate(names):
        await store_new(session_store, make_session(f"n{number}", external_id=name))
    found = [await session_store.find(ENV_A.id, name) for name in names]
    assert [session and session.external_id for session in found] == names


async def test_of_many_ids_those_that_exist_are_found(session_store: SessionStore) -> None:
    sessions = [await store_new(session_store, make_session(f"n{n}")) for n in range(5)]
    await store_new(session_store, make_session("theirs", environment=ENV_B))
    ids = [sessions[3].id, SessionId("session_unknown"), sessions[1].id, SessionId("session_theirs")]
    found = await session_store.find_many(ENV_A.id, ids)
    assert sorted(found, key=lambda session: session.id) == [sessions[1], sessions[3]]
    assert await session_store.find_many(ENV_A.id, []) == []


async def test_thousands_of_ids_can_be_asked_for_at_once(session_store: SessionStore) -> None:
    session = await store_new(session_store, make_session())
    unknown = {SessionId(f"session_unknown{n}") for n in range(3000)}
    assert await session_store.find_many(ENV_A.id, unknown | {session.id}) == [session]


# --- update ---


@pytest.mark.parametrize(
    "changes",
    [
        {"tags": ("new",)},
        {"tags": ()},
        {"metadata": {"new": [1]}},
        {"metadata": None},
        {"tags": ("n",), "metadata": {}},
    ],
    ids=str,
)
async def test_an_update_replaces_what_it_names_and_sets_the_time(
    session_store: SessionStore, clock: ManualClock, changes: dict[str, Any]
) -> None:
    session = await store_new(session_store, make_session(tags=("old",), metadata={"old": 1}))
    clock.advance(SECOND)
    updated = await session_store.update(ENV_A.id, session.id, SessionUpdate(**changes))
    assert updated == attrs.evolve(session, updated_at=clock.now(), **changes)
    assert await session_store.find(ENV_A.id, session.id) == updated


async def test_an_empty_update_only_sets_the_time(session_store: SessionStore, clock: ManualClock) -> None:
    session = await store_new(session_store, make_session(tags=("old",)))
    clock.advance(SECOND)
    updated = await session_store.update(ENV_A.id, session.id, SessionUpdate())
    assert updated == attrs.evolve(session, updated_at=clock.now())


@pytest.mark.parametrize("prepare", [close, let_expire], ids=["closed", "expired"])
async def test_a_session_that_is_over_can_be_updated(
    session_store: SessionStore, clock: ManualClock, prepare: Any
) -> None:
    session = await store_new(session_store, make_session(expires_at=START + SECOND))
    await prepare(session_store, clock, session)
    assert (await session_store.update(ENV_A.id, session.id, SessionUpdate(tags=("late",)))).tags == ("late",)


async def test_concurrent_changes_of_different_members_are_all_kept(session_store: SessionStore) -> None:
    session = await store_new(session_store, make_session())
    run = following(session)
    calls: list[Call] = [
        partial(session_store.update, ENV_A.id, session.id, SessionUpdate(tags=("t",))),
        partial(session_store.claim_run, run, expected_version=1),
        partial(session_store.update, ENV_A.id, session.id, SessionUpdate(metadata={"m": 1})),
        partial(session_store.close, ENV_A.id, session.id, "over"),
    ]
    await at_once(calls)
    found = await session_store.find(ENV_A.id, session.id)
    assert found is not None
    assert (found.tags, found.metadata, found.closed_reason) == (("t",), {"m": 1}, "over")


@pytest.mark.parametrize("environment", [ENV_A, ENV_B])
async def test_an_unknown_session_cannot_be_changed(session_store: SessionStore, environment: Any) -> None:
    session = await store_new(session_store, make_session())
    name = SessionId("session_unknown") if environment is ENV_A else session.id
    with pytest.raises(SessionNotFoundError):
        await session_store.update(environment.id, name, SessionUpdate(tags=("x",)))
    with pytest.raises(SessionNotFoundError):
        await session_store.close(environment.id, name, "x")
    assert await session_store.find(ENV_A.id, session.id) == session


# --- close ---


@pytest.mark.parametrize("reason", [None, "", "done"])
async def test_a_close_sets_time_and_reason_once(
    session_store: SessionStore, clock: ManualClock, reason: str | None
) -> None:
    session = await store_new(session_store, make_session())
    clock.advance(SECOND)
    closed = await session_store.close(ENV_A.id, session.id, reason)
    assert (closed.closed_at, closed.closed_reason) == (START + SECOND, reason)
    clock.advance(SECOND)
    assert await session_store.close(ENV_A.id, session.id, "again") == closed
    assert await session_store.find(ENV_A.id, session.id) == closed


async def test_an_expired_session_can_be_closed(session_store: SessionStore, clock: ManualClock) -> None:
    session = await store_new(session_store, make_session(expires_at=START + SECOND))
    clock.advance(2 * SECOND)
    assert (await session_store.close(ENV_A.id, session.id, "late")).closed_reason == "late"


async def test_of_many_concurrent_closes_all_get_the_first_reason(session_store: SessionStore) -> None:
    session = await store_new(session_store, make_session())
    closed = await at_once([partial(session_store.close, ENV_A.id, session.id, f"reason {n}") for n in range(20)])
    assert len({session.closed_reason for session in closed}) == 1


async def test_a_session_is_marked_as_sealed_once(session_store: SessionStore, clock: ManualClock) -> None:
    session = await store_new(session_store, make_session())
    other = await store_new(session_store, make_session("other"))
    await session_store.mark_sealed(session.id)
    clock.advance(SECOND)
    await session_store.mark_sealed(session.id)
    found = await session_store.find(ENV_A.id, session.id)
    assert found is not None
    assert found.sealed_at == START
    assert await session_store.find(ENV_A.id, other.id) == other


# --- check ---


async def test_a_check_of_a_working_store_changes_nothing(session_store: SessionStore) -> None:
    session = await store_new(session_store, make_session())
    await session_store.check()
    await at_once([session_store.check] * 10)
    assert await session_store.find(ENV_A.id, session.id) == session
