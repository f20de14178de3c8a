"""Random calls to the stores of sessions and runs and to the backlog, compared with those in memory.

After every call both must hold the same rows, and the rows must make sense: that is what checks the memory itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
from anyio.from_thread import BlockingPortal
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from contract.adapters import Adapters, Case, cases_with, open_memory
from contract.machines import AdapterMachine, run_machine
from contract.makers import ENV_A, ENV_B, MILLISECOND, following, initial, make_session
from sessions_core.domain.claim import Claim
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import RunId, SessionId
from sessions_core.domain.run import Holding, Progress, RunRecord
from sessions_core.domain.session import UNSET, Session, SessionUpdate, Unset
from sessions_core.domain.status import ALIVE, RunStatus
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.ports.backlog import Backlog
from sessions_core.ports.run_store import RunStore
from sessions_core.ports.session_store import SessionStore

MOST_SESSIONS = 4
MOST_RUNS = 10
PORTS = ("session_store", "run_store", "backlog")

environments = st.sampled_from([ENV_A, ENV_B])
session_ids = st.integers(0, MOST_SESSIONS).map(lambda number: SessionId(f"session_{number}"))
run_ids = st.integers(0, MOST_RUNS).map(lambda number: RunId(f"run_{number}"))
external_ids = st.sampled_from([None, "x", "y"])
finals = st.sampled_from(sorted(set(RunStatus) - ALIVE))
progresses = st.none() | st.builds(Progress, st.integers(-1, 5), st.integers(0, 5))
milliseconds = st.sampled_from([1, 500, 1000, 3000])


@attrs.frozen
class Stores:
    """The ports whose rows belong together."""

    sessions: SessionStore
    runs: RunStore
    backlog: Backlog

    @classmethod
    def of(cls, adapters: Adapters) -> Stores:
        assert adapters.session_store is not None
        assert adapters.run_store is not None
        assert adapters.backlog is not None
        return cls(adapters.session_store, adapters.run_store, adapters.backlog)


class SessionStoreMachine(AdapterMachine):
    def __init__(self, case: Case, portal: BlockingPortal) -> None:
        super().__init__(case, portal)
        self._model = portal.wrap_async_context_manager(open_memory(self.clock))
        self.subject, self.model = Stores.of(self.adapters), Stores.of(self._model.__enter__())
        self.sessions: list[Session] = []
        self.runs: list[RunId] = []
        self.begun = 0

    def teardown(self) -> None:
        self._model.__exit__(None, None, None)
        super().teardown()

    def both(self, call: Callable[[Stores], Callable[..., Awaitable[Any]]], *arguments: Any, **options: Any) -> Any:
        """Send one call to both; demand the same answer, whatever the order of a list; return it."""
        expected = self.answer(call(self.model), *arguments, **options)
        actual = self.answer(call(self.subject), *arguments, **options)
        assert _in_order(actual) == _in_order(expected)
        return expected

    def current(self, session_id: SessionId) -> Session | None:
        """Return the session as it is now."""
        known = next((session for session in self.sessions if session.id == session_id), None)
        if known is None:
            return None
        found: Session = self.answer(self.model.sessions.find, known.environment.id, session_id)
        return found

    # --- sessions ---

    @precondition(lambda self: len(self.sessions) < MOST_SESSIONS and len(self.runs) < MOST_RUNS)
    @rule(where=environments, external_id=external_ids, task=st.sampled_from("vw"), lasts=st.none() | milliseconds)
    def create(self, where: Environment, external_id: str | None, task: str, lasts: int | None) -> None:
        now = self.clock.now()
        session = make_session(
            f"{len(self.sessions)}",
            external_id=external_id,
            at=now,
            environment=where,
            task=task,
            trigger_config=TriggerConfig({"basePayload": {"at": str(now)}}),
            expires_at=None if lasts is None else now + lasts * MILLISECOND,
        )
        run = attrs.evolve(initial(session), id=RunId(f"run_{len(self.runs)}"))
        creation = self.both(lambda stores: stores.sessions.create, session, run)
        if creation.is_new:
            self.sessions.append(session)
            self.runs.append(run.id)

    @rule(where=environments, name=session_ids | st.sampled_from(["x", "y", "z"]))
    def find(self, where: Environment, name: str) -> None:
        self.both(lambda stores: stores.sessions.find, where.id, name)

    @rule(where=environments, ids=st.sets(session_ids))
    def find_many(self, where: Environment, ids: set[SessionId]) -> None:
        self.both(lambda stores: stores.sessions.find_many, where.id, ids)

    @rule(
        where=environments,
        session_id=session_ids,
        tags=st.just(UNSET) | st.lists(st.sampled_from("ab"), max_size=2),
        metadata=st.sampled_from([UNSET, None, {}, {"a": 1}]),
    )
    def update(
        self, where: Environment, session_id: SessionId, tags: Any, metadata: dict[str, Any] | Unset | None
    ) -> None:
        change = SessionUpdate(tags=tags, metadata=metadata)
        self.both(lambda stores: stores.sessions.update, where.id, session_id, change)

    @rule(where=environments, session_id=session_ids, reason=st.sampled_from([None, "a", "b"]))
    def close(self, where: Environment, session_id: SessionId, reason: str | None) -> None:
        self.both(lambda stores: stores.sessions.close, where.id, session_id, reason)

    @rule(session_id=session_ids)
    def mark_sealed(self, session_id: SessionId) -> None:
        self.both(lambda stores: stores.sessions.mark_sealed, session_id)

    @precondition(lambda self: len(self.runs) < MOST_RUNS)
    @rule(
        session_id=session_ids,
        offset=st.sampled_from([0, 0, 0, 0, -1, 1]),
        expected=st.sampled_from(["nobody", "current", "other"]),
        delay=st.none() | milliseconds,
        is_elsewhere=st.sampled_from([False, False, False, True]),
    )
    def claim(
        self,
        session_id: SessionId,
        offset: int,
        expected: str,
        delay: int | None,
        is_elsewhere: bool,
    ) -> None:
        session = self.current(session_id)
        if session is None:
            return
        run = self._successor(session, offset, delay)
        if is_elsewhere:
            run = attrs.evolve(run, environment=ENV_B if session.environment == ENV_A else ENV_A)
        claim = self.both(
            lambda stores: stores.sessions.claim_run,
            run,
            expected_version=run.version - 1,
            expected_run={"nobody": None, "current": session.current_run_id, "other": RunId("run_other")}[expected],
        )
        if claim is Claim.WON:
            self.runs.append(run.id)

    def _successor(self, session: Session, offset: int, delay: int | None) -> RunRecord:
        now = self.clock.now()
        read = attrs.evolve(session, current_run_version=session.current_run_version + offset)
        after = None if delay is None else now + delay * MILLISECOND
        run = following(read, now=now, dispatch_after=after, failures=len(self.runs))
        return attrs.evolve(run, id=RunId(f"run_{len(self.runs)}"))

    @rule(where=environments, session_id=session_ids, limit=st.integers(1, 4))
    def list_runs(self, where: Environment, session_id: SessionId, limit: int) -> None:
        expected = self.answer(self.model.sessions.list_runs, where.id, session_id, limit)
        assert self.answer(self.subject.sessions.list_runs, where.id, session_id, limit) == expected

    # --- runs ---

    def attempt_of(self, run_id: RunId) -> int:
        run = self.answer(self.model.runs.get, run_id)
        return run.attempt if isinstance(run, RunRecord) else 0

    @rule(where=environments, run_id=run_ids)
    def find_run(self, where: Environment, run_id: RunId) -> None:
        self.both(lambda stores: stores.runs.find, where.id, run_id)

    @rule(run_id=run_ids)
    def mark_dispatched(self, run_id: RunId) -> None:
        self.both(lambda stores: stores.runs.mark_dispatched, run_id)

    @rule(run_id=run_ids, offset=st.sampled_from([1, 1, 1, 0, 2]))
    def begin(self, run_id: RunId, offset: int) -> None:
        begun = self.both(lambda stores: stores.runs.begin, run_id, self.attempt_of(run_id) + offset)
        self.begun += isinstance(begun, RunRecord)

    @rule(held=st.dictionaries(run_ids, st.sampled_from([0, 0, -1, 1]), max_size=4))
    def beat(self, held: dict[RunId, int]) -> None:
        holdings = [Holding(run_id, self.attempt_of(run_id) + offset) for run_id, offset in held.items()]
        self.both(lambda stores: stores.runs.beat, holdings)

    @rule(run_id=run_ids, offset=st.sampled_from([0, 0, 0, -1, 1]), status=finals, end=progresses)
    def finish(self, run_id: RunId, offset: int, status: RunStatus, end: Progress | None) -> None:
        holding = Holding(run_id, self.attempt_of(run_id) + offset)
        self.both(lambda stores: stores.runs.finish, holding, status, end=end, error=None if end else "why")

    # --- backlog ---

    @rule(ago=milliseconds)
    def list_what_is_left(self, ago: int) -> None:
        before = self.clock.now() + timedelta(milliseconds=500 - ago)
        self.both(lambda stores: stores.backlog.list_undispatched, before, 100)
        first = self.both(lambda stores: stores.backlog.list_undispatched, before, 1)
        self.both(lambda stores: stores.backlog.list_undispatched, before, 100, after=first[0] if first else None)
        self.both(lambda stores: stores.backlog.list_stalled, before, 100)
        self.both(lambda stores: stores.backlog.list_unsettled, 100)
        self.both(lambda stores: stores.backlog.list_unsealed, 100)

    @rule()
    def forget_dispatches(self) -> None:
        self.both(lambda stores: stores.backlog.forget_dispatches)

    @rule(run_id=run_ids, end=progresses)
    def settle(self, run_id: RunId, end: Progress | None) -> None:
        run = self.answer(self.model.runs.get, run_id)
        if isinstance(run, RunRecord) and not run.is_alive:
            self.both(lambda stores: stores.backlog.settle, run_id, end)

    @rule(by=milliseconds)
    def move_the_clock(self, by: int) -> None:
        self.clock.advance(by * MILLISECOND)

    # --- what always holds ---

    @invariant()
    def both_hold_the_same_rows_and_they_make_sense(self) -> None:
        rows = self.portal.call(self._rows, self.subject)
        assert rows == self.portal.call(self._rows, self.model)
        for session, history in rows[0]:
            assert session.current_run_version == len(history)
            assert session.current_run_id == history[0].run_id
        assert sum(session.epoch for session, _ in rows[0]) == self.begun
        assert all(run.epoch <= self.begun and (run.epoch == 0) == (run.attempt == 0) for run in rows[1])
        assert self.adapters.stored_runs is not None
        assert self.adapters.stored_runs() == set(self.runs)

    async def _rows(self, stores: Stores) -> tuple[list[Any], list[RunRecord]]:
        sessions = []
        for session in self.sessions:
            found = await stores.sessions.find(session.environment.id, session.id)
            sessions.append((found, await stores.sessions.list_runs(session.environment.id, session.id, 100)))
        return sessions, [await stores.runs.get(run_id) for run_id in self.runs]


def _in_order(answer: Any) -> Any:
    return sorted(answer, key=lambda row: row.id) if isinstance(answer, list) else answer


@pytest.mark.parametrize("subject", cases_with(PORTS, backends=["asyncio"]), ids=str)
def test_the_stores_of_sessions_and_runs_do_what_those_in_memory_do(subject: Case) -> None:
    run_machine(SessionStoreMachine, subject)
