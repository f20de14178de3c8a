"""Random questions to an index over random sessions, compared with a sorted list and :meth:`SessionFilter.admits`."""

from __future__ import annotations

import attrs
import pytest
from anyio.from_thread import BlockingPortal
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from contract.adapters import Case, cases_with
from contract.machines import AdapterMachine, run_machine
from contract.makers import ENV_A, ENV_B, MILLISECOND, START, initial, make_session
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import ExternalId, SessionId
from sessions_core.domain.pagination import Cursor, Direction, PageRequest, SessionFilter
from sessions_core.domain.session import Session, SessionUpdate
from sessions_core.domain.status import SessionStatus

TAGS = ["a", "A", "b", "ab", "%", ""]
environments = st.sampled_from([ENV_A, ENV_B])
tags = st.lists(st.sampled_from(TAGS), max_size=3).map(tuple)
moments = st.integers(0, 4).map(lambda number: START + number * MILLISECOND)
names = st.text("ab_0Z", min_size=1, max_size=3)
sessions = st.builds(
    make_session,
    names,
    external_id=st.none() | st.sampled_from(["x", "y"]),
    at=moments,
    environment=environments,
    type=st.sampled_from("tu"),
    task=st.sampled_from("vw"),
    tags=tags,
    expires_at=st.none() | moments,
)
filters = st.builds(
    SessionFilter,
    environment_id=environments.map(lambda environment: environment.id),
    types=st.lists(st.sampled_from("tu"), max_size=2).map(tuple),
    tags=tags,
    tasks=st.lists(st.sampled_from("vw"), max_size=2).map(tuple),
    statuses=st.lists(st.sampled_from(SessionStatus), max_size=2).map(tuple),
    external_id=st.none() | st.sampled_from(["x", "y"]).map(ExternalId),
    created_from=st.none() | moments,
    created_to=st.none() | moments,
)
cursors = st.builds(Cursor, moments, names.map(lambda name: SessionId(f"session_{name}")))
requests = st.builds(
    PageRequest, size=st.integers(1, 5), cursor=st.none() | cursors, direction=st.sampled_from(Direction)
)


def position(row: Session | Cursor) -> tuple[object, str]:
    return (row.created_at, row.id)


class SessionIndexMachine(AdapterMachine):
    def __init__(self, case: Case, portal: BlockingPortal) -> None:
        super().__init__(case, portal)
        assert self.adapters.session_index is not None
        self.index = self.adapters.session_index
        store = self.adapters.indexed_store or self.adapters.session_store
        assert store is not None
        self.store = store
        self.sessions: dict[SessionId, Session] = {}

    @initialize(first=st.lists(sessions, max_size=12))
    def begin_with(self, first: list[Session]) -> None:
        for session in first:
            self.add(session)

    @rule(session=sessions)
    def add(self, session: Session) -> None:
        taken = {(old.environment.id, old.external_id) for old in self.sessions.values() if old.external_id}
        if session.id in self.sessions or (session.environment.id, session.external_id) in taken:
            return
        self.sessions[session.id] = self.answer(self.store.create, session, initial(session)).session

    @rule(session_id=names.map(lambda name: SessionId(f"session_{name}")), new=tags)
    def change_tags(self, session_id: SessionId, new: tuple[str, ...]) -> None:
        old = self.sessions.get(session_id)
        if old is not None:
            self.answer(self.store.update, old.environment.id, old.id, SessionUpdate(tags=new))
            self.sessions[session_id] = attrs.evolve(old, tags=new)

    @rule(session_id=names.map(lambda name: SessionId(f"session_{name}")))
    def close(self, session_id: SessionId) -> None:
        old = self.sessions.get(session_id)
        if old is not None:
            self.sessions[session_id] = self.answer(self.store.close, old.environment.id, old.id, None)

    @rule(milliseconds=st.integers(1, 2))
    def move_the_clock(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds * MILLISECOND)

    @rule(wanted=filters, request=requests)
    def select(self, wanted: SessionFilter, request: PageRequest) -> None:
        is_after = request.direction is Direction.AFTER
        rows = sorted(self._admitted(wanted), key=position, reverse=is_after)
        if request.cursor is not None:
            at = position(request.cursor)
            rows = [row for row in rows if (position(row) < at if is_after else position(row) > at)]
        found = self.answer(self.index.select, self._environment(wanted), wanted, request)
        assert [(entry.created_at, entry.id) for entry in found] == [position(row) for row in rows][: request.size + 1]

    @rule(wanted=filters)
    def count(self, wanted: SessionFilter) -> None:
        assert self.answer(self.index.count, self._environment(wanted), wanted) == len(self._admitted(wanted))

    @rule(environment=environments, containing=st.sampled_from(["", "a", "B", "%", "_"]), limit=st.integers(1, 4))
    def list_tags(self, environment: Environment, containing: str, limit: int) -> None:
        here = [session for session in self.sessions.values() if session.environment == environment]
        expected = sorted({tag for session in here for tag in session.tags if containing.lower() in tag.lower()})
        found = self.answer(self.index.list_tags, environment, containing=containing, limit=limit)
        assert found == expected[:limit]

    def _admitted(self, wanted: SessionFilter) -> list[Session]:
        return [session for session in self.sessions.values() if wanted.admits(session, self.clock.now())]

    def _environment(self, wanted: SessionFilter) -> Environment:
        return ENV_A if wanted.environment_id == ENV_A.id else ENV_B


@pytest.mark.parametrize("subject", cases_with(["session_index", "indexed_store"], backends=["asyncio"]), ids=str)
def test_an_index_does_what_a_sorted_list_does(subject: Case) -> None:
    run_machine(SessionIndexMachine, subject)
