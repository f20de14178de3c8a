"""Sessions in memory."""

from __future__ import annotations

from collections.abc import Collection

import attrs
from anyio.lowlevel import checkpoint

from sessions_adapters.memory.tables import Tables
from sessions_core.domain.claim import Claim
from sessions_core.domain.ids import EnvironmentId, RunId, SessionId
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Creation, Session, SessionRun, SessionUpdate
from sessions_core.errors import SessionNotFoundError
from sessions_core.ports.session_store import SessionStore


@attrs.define(eq=False)
class InMemorySessionStore(SessionStore):
    """Keeps sessions in :class:`Tables`."""

    _tables: Tables

    async def create(self, session: Session, run: RunRecord) -> Creation:
        await checkpoint()
        stored = None
        if session.external_id is not None:
            stored = self._tables.find(session.environment.id, session.external_id)
        return self._insert(session, run) if stored is None else self._refresh(stored, session)

    def _insert(self, session: Session, run: RunRecord) -> Creation:
        self._tables.insert(session)
        return Creation(session=self._tables.claim(session, run), is_new=True, refreshed=True)

    def _refresh(self, stored: Session, wanted: Session) -> Creation:
        now = self._tables.now()
        if stored.task != wanted.task or stored.refusal(now) is not None:
            return Creation(session=stored, is_new=False, refreshed=False)
        fresh = attrs.evolve(stored, trigger_config=wanted.trigger_config, updated_at=now)
        return Creation(session=self._tables.save(fresh), is_new=False, refreshed=True)

    async def find(self, environment_id: EnvironmentId, name: str) -> Session | None:
        await checkpoint()
        return self._tables.find(environment_id, name)

    async def find_many(self, environment_id: EnvironmentId, ids: Collection[SessionId]) -> list[Session]:
        await checkpoint()
        found = (self._tables.find(environment_id, session_id) for session_id in set(ids))
        return [session for session in found if session is not None]

    async def update(self, environment_id: EnvironmentId, session_id: SessionId, change: SessionUpdate) -> Session:
        await checkpoint()
        return self._tables.save(change.apply(self._get(environment_id, session_id), self._tables.now()))

    async def close(
        self,
        environment_id: EnvironmentId,
        session_id: SessionId,
        reason: str | None,
        *,
        expected_run: RunId | None = None,
        expected_epoch: int | None = None,
    ) -> Session:
        await checkpoint()
        session = self._get(environment_id, session_id)
        if session.closed_at is not None or not _is_as_expected(session, expected_run, expected_epoch):
            return session
        now = self._tables.now()
        return self._tables.save(attrs.evolve(session, closed_at=now, closed_reason=reason, updated_at=now))

    async def mark_sealed(self, session_id: SessionId) -> None:
        await checkpoint()
        session = self._tables.sessions.get(session_id)
        if session is not None and session.sealed_at is None:
            self._tables.save(attrs.evolve(session, sealed_at=self._tables.now()))

    async def claim_run(
        self,
        run: RunRecord,
        *,
        expected_version: int,
        expected_run: RunId | None = None,
        expected_epoch: int | None = None,
    ) -> Claim:
        await checkpoint()
        now = self._tables.now()
        session = self._tables.find(run.environment.id, run.session_id)
        if (
            session is None
            or session.refusal(now) is not None
            or session.current_run_version != expected_version
            or not _is_as_expected(session, expected_run, expected_epoch)
        ):
            return Claim.LOST
        self._tables.claim(attrs.evolve(session, updated_at=now), run)
        return Claim.WON

    async def list_runs(self, environment_id: EnvironmentId, session_id: SessionId, limit: int) -> list[SessionRun]:
        await checkpoint()
        session = self._tables.find(environment_id, session_id)
        return [] if session is None else self._tables.history[session.id][::-1][:limit]

    async def check(self) -> None:
        await checkpoint()

    def _get(self, environment_id: EnvironmentId, session_id: SessionId) -> Session:
        session = self._tables.find(environment_id, session_id)
        if session is None:
            raise SessionNotFoundError(session_id)
        return session


def _is_as_expected(session: Session, run_id: RunId | None, epoch: int | None) -> bool:
    return run_id in (None, session.current_run_id) and epoch in (None, session.epoch)
