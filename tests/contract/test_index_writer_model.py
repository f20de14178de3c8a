"""Random rows in any order, several times over, compared with a dictionary that keeps the largest version of each session."""

from __future__ import annotations

import pytest
from anyio.from_thread import BlockingPortal
from hypothesis import strategies as st
from hypothesis.stateful import rule

from contract.adapters import Case, cases_with
from contract.machines import AdapterMachine, run_machine
from contract.makers import ENV_A, ENV_B, MILLISECOND, START, make_session
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import SessionId
from sessions_core.domain.pagination import Direction, PageRequest, SessionFilter
from sessions_core.domain.session import Session
from sessions_core.ports.session_index import IndexRow

MOST = 100
environments = st.sampled_from([ENV_A, ENV_B])
names = st.integers(0, 8)


def make_row(number: int, version: int, tag: str, is_deleted: bool) -> IndexRow:
    """Make a row about session *number*. Its version says all about it, as a store's log would: it never tells two stories."""
    told = (number + version + (tag == "x")) % 3
    session = make_session(
        f"{number}",
        at=START + (number % 3) * MILLISECOND,
        environment=ENV_B if number % 4 == 0 else ENV_A,
        type=f"type {number % 2}",
        tags=(f"{version}", f"n{number}")[: told + 1],
        closed_at=START if told == 1 else None,
    )
    return IndexRow(session, version, is_deleted)


class IndexWriterMachine(AdapterMachine):
    def __init__(self, case: Case, portal: BlockingPortal) -> None:
        super().__init__(case, portal)
        assert self.adapters.index_writer is not None
        assert self.adapters.session_index is not None
        self.writer = self.adapters.index_writer
        self.index = self.adapters.session_index
        self.story: dict[tuple[int, int], IndexRow] = {}
        self.kept: dict[SessionId, IndexRow] = {}

    @rule(
        changes=st.lists(
            st.tuples(names, st.integers(0, 6), st.sampled_from("xy"), st.booleans()), min_size=1, max_size=6
        )
    )
    def write(self, changes: list[tuple[int, int, str, bool]]) -> None:
        rows = [self.story.setdefault((change[0], change[1]), make_row(*change)) for change in changes]
        self.answer(self.writer.write, rows)
        for row in rows:
            old = self.kept.get(row.session.id)
            if old is None or row.version >= old.version:
                self.kept[row.session.id] = row

    @rule(
        environment=environments,
        types=st.lists(st.sampled_from(["type 0", "type 1"]), max_size=1),
        direction=st.sampled_from(Direction),
        size=st.integers(1, 5),
    )
    def select(self, environment: Environment, types: list[str], direction: Direction, size: int) -> None:
        wanted = SessionFilter(environment_id=environment.id, types=tuple(types))
        request = PageRequest(size=size, direction=direction)
        found = self.answer(self.index.select, environment, wanted, request)
        rows = sorted(((s.created_at, s.id) for s in self._sessions(wanted)), reverse=direction is Direction.AFTER)
        assert [(entry.created_at, entry.id) for entry in found] == rows[: size + 1]

    @rule(environment=environments)
    def count_and_tags(self, environment: Environment) -> None:
        wanted = SessionFilter(environment_id=environment.id)
        sessions = self._sessions(wanted)
        assert self.answer(self.index.count, environment, wanted) == len(sessions)
        tags = sorted({tag for session in sessions for tag in session.tags})
        assert self.answer(self.index.list_tags, environment, limit=MOST) == tags

    def _sessions(self, wanted: SessionFilter) -> list[Session]:
        rows = [row for row in self.kept.values() if not row.is_deleted]
        return [row.session for row in rows if wanted.admits(row.session, self.clock.now())]


@pytest.mark.parametrize("subject", cases_with(["index_writer", "session_index"], backends=["asyncio"]), ids=str)
def test_a_writer_keeps_the_largest_version_of_each_session(subject: Case) -> None:
    run_machine(IndexWriterMachine, subject)
