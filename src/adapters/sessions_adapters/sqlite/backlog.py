"""What crashes left behind, in SQLite. Every question has a partial index, so its cost follows the answer."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import attrs

from sessions_adapters.sqlite.database import SqliteDatabase, for_owner
from sessions_adapters.sqlite.readers import snapshot
from sessions_adapters.sqlite.run_rows import SELECT_RUN, WAITS_FOR_WORKER, end_values, run_of
from sessions_adapters.sqlite.session_rows import session_of
from sessions_adapters.sqlite.values import to_ms, to_ms_up
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import Progress, RunRecord
from sessions_core.domain.session import Session
from sessions_core.ports.backlog import Backlog

LIST_UNDISPATCHED: Final = (
    SELECT_RUN
    + f"""
    where run.dispatched_at is null and run.{WAITS_FOR_WORKER} and run.created_at < :before
        and (run.created_at, run.id) > (:after, :after_id)
        and (run.dispatch_after is null or run.dispatch_after <= :now)
    order by run.created_at, run.id
"""
)
LIST_STALLED: Final = (
    SELECT_RUN
    + """
    where run.status = 'EXECUTING' and run.heartbeat_at < :before order by run.heartbeat_at, run.id
"""
)
LIST_UNSETTLED: Final = (
    SELECT_RUN
    + """
    where run.settled_at is null and run.ended_at is not null order by run.ended_at, run.id
"""
)
LIST_CLOSED: Final = "select * from session where sealed_at is null and closed_at is not null order by closed_at, id"
LIST_EXPIRED: Final = """
    select * from session where sealed_at is null and closed_at is null and expires_at <= ? order by expires_at, id
"""
FORGET_DISPATCHES: Final = f"""
    update run set dispatched_at = null where dispatched_at is not null and {WAITS_FOR_WORKER}
"""  # noqa: S608 - a constant
SETTLE: Final = """
    update run set settled_at = :now, end_cursor = coalesce(:end_cursor, end_cursor),
        end_out_tail = coalesce(:end_out_tail, end_out_tail)
    where id = :run and settled_at is null
"""


@attrs.define
class SqliteBacklog(Backlog):
    """Asks the tables of sessions and runs."""

    _db: SqliteDatabase = attrs.field(validator=for_owner)

    async def list_undispatched(
        self, before: datetime, limit: int, *, after: RunRecord | None = None
    ) -> list[RunRecord]:
        behind = (to_ms(after.created_at), after.id) if after else (0, "")
        values = {"before": to_ms_up(before), "now": self._db.now_ms(), "after": behind[0], "after_id": behind[1]}
        return await self._list_runs(LIST_UNDISPATCHED, values, limit)

    async def list_stalled(self, before: datetime, limit: int) -> list[RunRecord]:
        return await self._list_runs(LIST_STALLED, {"before": to_ms_up(before)}, limit)

    async def list_unsettled(self, limit: int) -> list[RunRecord]:
        return await self._list_runs(LIST_UNSETTLED, {}, limit)

    async def list_unsealed(self, limit: int) -> list[Session]:
        now = self._db.now_ms()

        def run(connection: sqlite3.Connection) -> list[Session]:
            with snapshot(connection):
                over = connection.execute(LIST_CLOSED), connection.execute(LIST_EXPIRED, (now,))
                return self._db.results.merge(over, session_of, limit, key=_over_since)

        return await self._db.read(run)

    async def forget_dispatches(self) -> int:
        return await self._db.write(lambda c: c.execute(FORGET_DISPATCHES).rowcount)

    async def settle(self, run_id: RunId, end: Progress | None) -> None:
        values = {"run": run_id, "now": self._db.now_ms(), **end_values(end)}
        await self._db.write(lambda c: c.execute(SETTLE, values).rowcount)

    async def _list_runs(self, statement: str, values: Mapping[str, Any], limit: int) -> list[RunRecord]:
        return await self._db.read(lambda c: self._db.results.read(c.execute(statement, values), run_of, limit))


def _over_since(row: sqlite3.Row) -> tuple[int, str]:
    return (row["expires_at"] if row["closed_at"] is None else row["closed_at"], row["id"])
