"""Runs in memory."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import attrs
from anyio.lowlevel import checkpoint

from sessions_adapters.memory.tables import Tables
from sessions_core.domain.ids import EnvironmentId, RunId
from sessions_core.domain.run import Holding, Progress, RunRecord
from sessions_core.domain.session import Session
from sessions_core.domain.status import RunStatus
from sessions_core.errors import RunNotFoundError
from sessions_core.ports.run_store import RunStore


@attrs.define(eq=False)
class InMemoryRunStore(RunStore):
    """Keeps run records in :class:`Tables`."""

    _tables: Tables

    async def find(self, environment_id: EnvironmentId, run_id: RunId) -> RunRecord | None:
        await checkpoint()
        run = self._tables.runs.get(run_id)
        return run if run is not None and run.environment.id == environment_id else None

    async def get(self, run_id: RunId) -> RunRecord:
        await checkpoint()
        return self._get(run_id)

    async def mark_dispatched(self, run_id: RunId) -> None:
        await checkpoint()
        run = self._tables.runs.get(run_id)
        if run is not None:
            self._tables.save_run(attrs.evolve(run, dispatched_at=self._tables.now()))

    async def begin(self, run_id: RunId, attempt: int) -> RunRecord | None:
        await checkpoint()
        run = self._get(run_id)
        session = self._tables.sessions[run.session_id]
        now = self._tables.now()
        if not _may_begin(run, attempt, session, now):
            return None
        session = self._tables.save(attrs.evolve(session, epoch=session.epoch + 1))
        begun = attrs.evolve(run, status=RunStatus.EXECUTING, attempt=attempt, epoch=session.epoch, heartbeat_at=now)
        return self._tables.save_run(attrs.evolve(begun, started_at=run.started_at or now))

    async def beat(self, holdings: Collection[Holding]) -> frozenset[RunId]:
        await checkpoint()
        return frozenset(holding.run_id for holding in holdings if not self._beat(holding))

    def _beat(self, holding: Holding) -> bool:
        """Refresh one heartbeat if it may be; tell whether the holder may go on."""
        run = self._tables.runs.get(holding.run_id)
        if run is None or run.attempt != holding.attempt or run.status is not RunStatus.EXECUTING:
            return False
        self._tables.save_run(attrs.evolve(run, heartbeat_at=self._tables.now()))
        return self._tables.sessions[run.session_id].current_run_id == run.id

    async def finish(
        self,
        holding: Holding,
        status: RunStatus,
        *,
        end: Progress | None = None,
        error: str | None = None,
        last_beat: datetime | None = None,
    ) -> bool:
        await checkpoint()
        run = self._tables.runs.get(holding.run_id)
        if run is None or run.attempt != holding.attempt or not run.is_alive:
            return False
        if last_beat is not None and run.heartbeat_at != last_beat:
            return False
        self._tables.save_run(attrs.evolve(run, status=status, end=end, error=error, ended_at=self._tables.now()))
        return True

    def _get(self, run_id: RunId) -> RunRecord:
        run = self._tables.runs.get(run_id)
        if run is None:
            raise RunNotFoundError(run_id)
        return run


def _may_begin(run: RunRecord, attempt: int, session: Session, now: datetime) -> bool:
    is_next = run.is_alive and run.attempt == attempt - 1
    return is_next and session.current_run_id == run.id and session.refusal(now) is None
