"""The rows that the stores of sessions and runs, the backlog and the index look at together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import attrs

from sessions_core.domain.ids import EnvironmentId, RunId, SessionId, is_friendly_id
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Session, SessionRun, to_milliseconds
from sessions_core.ports.clock import Clock


@attrs.define(eq=False)
class Tables:
    """Sessions, runs, and which runs each session has had, oldest first.

    Attributes:
        names: Who has an external id.
        on_save: Is told of every session's row that is saved, and whether it is new.
    """

    clock: Clock
    sessions: dict[SessionId, Session] = attrs.field(init=False, factory=dict, repr=False)
    names: dict[tuple[EnvironmentId, str], SessionId] = attrs.field(init=False, factory=dict, repr=False)
    runs: dict[RunId, RunRecord] = attrs.field(init=False, factory=dict, repr=False)
    history: dict[SessionId, list[SessionRun]] = attrs.field(init=False, factory=dict, repr=False)
    on_save: Callable[[Session, bool], None] | None = attrs.field(init=False, default=None, repr=False)

    def now(self) -> datetime:
        """Return the time, in the resolution in which times are kept."""
        return to_milliseconds(self.clock.now())

    def find(self, environment_id: EnvironmentId, name: str) -> Session | None:
        """Return the environment's session that has *name* as one of its ids."""
        session_id = SessionId(name) if is_friendly_id(name) else self.names.get((environment_id, name))
        session = None if session_id is None else self.sessions.get(session_id)
        return session if session is not None and session.environment.id == environment_id else None

    def insert(self, session: Session) -> None:
        """Add a new session."""
        self.save(session)
        self.history[session.id] = []
        if session.external_id is not None:
            self.names[session.environment.id, session.external_id] = session.id

    def save(self, session: Session) -> Session:
        """Add or replace a session's row."""
        is_new = session.id not in self.sessions
        self.sessions[session.id] = session
        if self.on_save is not None:
            self.on_save(session, is_new)
        return session

    def save_run(self, run: RunRecord) -> RunRecord:
        """Replace a run's record."""
        self.runs[run.id] = run
        return run

    def claim(self, session: Session, run: RunRecord) -> Session:
        """Add *run* and its line of history, and make it the current run of *session*."""
        self.save_run(run)
        self.history[session.id].append(
            SessionRun(session_id=session.id, run_id=run.id, reason=run.reason, triggered_at=run.created_at)
        )
        return self.save(attrs.evolve(session, current_run_id=run.id, current_run_version=run.version))
