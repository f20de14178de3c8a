"""What crashes left behind, in memory (where only tests leave something behind)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import attrs
from anyio.lowlevel import checkpoint

from sessions_adapters.memory.tables import Tables
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import Progress, RunRecord
from sessions_core.domain.session import Session
from sessions_core.domain.status import WAITING_FOR_WORKER, RunStatus, SessionStatus
from sessions_core.ports.backlog import Backlog


@attrs.define(eq=False)
class InMemoryBacklog(Backlog):
    """Looks through all of :class:`Tables`."""

    _tables: Tables

    async def list_undispatched(
        self, before: datetime, limit: int, *, after: RunRecord | None = None
    ) -> list[RunRecord]:
        await checkpoint()
        now = self._tables.now()

        def is_left(run: RunRecord) -> bool:
            is_due = run.dispatch_after is None or run.dispatch_after <= now
            is_waiting = run.status in WAITING_FOR_WORKER and run.dispatched_at is None
            is_behind = after is None or (run.created_at, run.id) > (after.created_at, after.id)
            return is_waiting and is_due and is_behind and run.created_at < before

        return self._list_runs(is_left, lambda run: run.created_at, limit)

    async def list_stalled(self, before: datetime, limit: int) -> list[RunRecord]:
        await checkpoint()

        def is_stalled(run: RunRecord) -> bool:
            is_silent = run.heartbeat_at is not None and run.heartbeat_at < before
            return is_silent and run.status is RunStatus.EXECUTING

        return self._list_runs(is_stalled, lambda run: run.heartbeat_at, limit)

    async def list_unsettled(self, limit: int) -> list[RunRecord]:
        await checkpoint()
        return self._list_runs(lambda run: not run.is_alive and run.settled_at is None, lambda run: run.ended_at, limit)

    async def list_unsealed(self, limit: int) -> list[Session]:
        await checkpoint()
        now = self._tables.now()
        over = (session for session in self._tables.sessions.values() if session.status(now) != SessionStatus.ACTIVE)
        unsealed = [session for session in over if session.sealed_at is None]
        return sorted(unsealed, key=lambda session: (session.closed_at or session.expires_at, session.id))[:limit]

    async def forget_dispatches(self) -> int:
        await checkpoint()
        dispatched = [
            run
            for run in self._tables.runs.values()
            if run.status in WAITING_FOR_WORKER and run.dispatched_at is not None
        ]
        for run in dispatched:
            self._tables.save_run(attrs.evolve(run, dispatched_at=None))
        return len(dispatched)

    async def settle(self, run_id: RunId, end: Progress | None) -> None:
        await checkpoint()
        run = self._tables.runs.get(run_id)
        if run is not None and run.settled_at is None:
            self._tables.save_run(attrs.evolve(run, settled_at=self._tables.now(), end=end or run.end))

    def _list_runs(
        self, is_wanted: Callable[[RunRecord], bool], age: Callable[[RunRecord], Any], limit: int
    ) -> list[RunRecord]:
        wanted = [run for run in self._tables.runs.values() if is_wanted(run)]
        return sorted(wanted, key=lambda run: (age(run), run.id))[:limit]
