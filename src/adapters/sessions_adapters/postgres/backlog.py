"""What crashes left behind, in Postgres. The questions are asked of partial indexes, so their cost follows the answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import attrs

from sessions_adapters.postgres.database import PostgresDatabase
from sessions_adapters.postgres.run_rows import SELECT_RUN, WAITS_FOR_WORKER, end_values, run_of
from sessions_adapters.postgres.session_rows import session_of
from sessions_adapters.postgres.values import bindable
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import Progress, RunRecord
from sessions_core.domain.session import Session
from sessions_core.ports.backlog import Backlog

FROM_THE_START: Final = (datetime.fromtimestamp(0, UTC), "")
"""Created before every run."""
LIST_UNDISPATCHED: Final = (
    SELECT_RUN
    + f"""
    where run.dispatched_at is null and {WAITS_FOR_WORKER} and run.created_at < $2
        and (run.created_at, run.id) > ($4, $5)
        and (run.dispatch_after is null or run.dispatch_after <= now_or($3))
    order by run.created_at, run.id limit $1
"""
)
# Heartbeats are in no index, so that refreshing one writes to the row alone; all executing runs are looked at.
LIST_STALLED: Final = (
    SELECT_RUN
    + """
    where run.status = 'EXECUTING' and run.heartbeat_at < $2 order by run.heartbeat_at, run.id limit $1
"""
)
LIST_UNSETTLED: Final = (
    SELECT_RUN
    + """
    where run.settled_at is null and run.ended_at is not null order by run.ended_at, run.id limit $1
"""
)
LIST_UNSEALED: Final = """
    (select *, closed_at as over_since from session where sealed_at is null and closed_at is not null
        order by closed_at, id limit $1)
    union all
    (select *, expires_at as over_since from session
        where sealed_at is null and closed_at is null and expires_at <= now_or($2)
        order by expires_at, id limit $1)
    order by over_since, id limit $1
"""
FORGET_DISPATCHES: Final = f"""
    update run set dispatched_at = null where dispatched_at is not null and {WAITS_FOR_WORKER}
"""  # noqa: S608 - a constant
SETTLE: Final = """
    update run set settled_at = now_or($4), end_cursor = coalesce($2, end_cursor),
        end_out_tail = coalesce($3, end_out_tail)
    where id = $1 and settled_at is null
"""


@attrs.define
class PostgresBacklog(Backlog):
    """Asks the tables of sessions and runs."""

    _db: PostgresDatabase

    async def list_undispatched(
        self, before: datetime, limit: int, *, after: RunRecord | None = None
    ) -> list[RunRecord]:
        behind = (after.created_at, after.id) if after else FROM_THE_START
        return await self._list_runs(limit, LIST_UNDISPATCHED, before, self._db.at(), *behind)

    async def list_stalled(self, before: datetime, limit: int) -> list[RunRecord]:
        return await self._list_runs(limit, LIST_STALLED, before)

    async def list_unsettled(self, limit: int) -> list[RunRecord]:
        return await self._list_runs(limit, LIST_UNSETTLED)

    async def list_unsealed(self, limit: int) -> list[Session]:
        at = self._db.at()
        return await self._db.pages.first(limit, lambda asked: self._db.fetch(LIST_UNSEALED, asked, at), session_of)

    async def forget_dispatches(self) -> int:
        return await self._db.execute(FORGET_DISPATCHES)

    async def settle(self, run_id: RunId, end: Progress | None) -> None:
        await self._db.execute(SETTLE, bindable(run_id), *end_values(end), self._db.at())

    async def _list_runs(self, limit: int, statement: str, *values: Any) -> list[RunRecord]:
        return await self._db.pages.first(limit, lambda asked: self._db.fetch(statement, asked, *values), run_of)
