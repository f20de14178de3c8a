"""The store of runs in SQLite. It looks at the rows that the store of sessions made."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from datetime import datetime
from typing import Final

import attrs

from sessions_adapters.sqlite.database import SqliteDatabase, for_owner
from sessions_adapters.sqlite.run_rows import IS_ALIVE, SELECT_RUN, end_values, get_run, run_of
from sessions_adapters.sqlite.session_rows import OPEN
from sessions_adapters.sqlite.values import bindable, maybe_ms
from sessions_core.domain.ids import EnvironmentId, RunId
from sessions_core.domain.run import Holding, Progress, RunRecord
from sessions_core.domain.status import RunStatus
from sessions_core.ports.run_store import RunStore

FIND_IN_ENVIRONMENT: Final = SELECT_RUN + "where run.id = ? and session.environment = ?"
MARK_DISPATCHED: Final = "update run set dispatched_at = ? where id = ?"
RAISE_EPOCH: Final = f"""
    update session set epoch = epoch + 1
    where current_run_id = :run and {OPEN}
        and id = (select session_id from run where id = :run and attempt = :attempt - 1 and {IS_ALIVE})
    returning epoch
"""  # noqa: S608 - a constant
BEGIN: Final = """
    update run set status = 'EXECUTING', attempt = :attempt, epoch = :epoch, heartbeat_at = :now,
        started_at = coalesce(started_at, :now)
    where id = :run
"""
BEAT: Final = """
    update run set heartbeat_at = :now where id = :run and attempt = :attempt and status = 'EXECUTING'
    returning (select current_run_id from session where session.id = run.session_id) = id as is_current
"""
FINISH: Final = f"""
    update run set status = :status, end_cursor = :end_cursor, end_out_tail = :end_out_tail, error = :error,
        ended_at = :now
    where id = :run and attempt = :attempt and {IS_ALIVE} and (:last_beat is null or heartbeat_at = :last_beat)
"""  # noqa: S608 - a constant


@attrs.define
class SqliteRunStore(RunStore):
    """Keeps run records. Every change is one transaction.

    Attributes:
        keeps_dispatches: Whether a dispatch lasts; if not, nothing is noted, and the sweep hands a run out until it has begun.
    """

    _db: SqliteDatabase = attrs.field(validator=for_owner)
    keeps_dispatches: bool = True

    async def find(self, environment_id: EnvironmentId, run_id: RunId) -> RunRecord | None:
        def find(connection: sqlite3.Connection) -> RunRecord | None:
            values = (bindable(run_id), bindable(environment_id))
            row = connection.execute(FIND_IN_ENVIRONMENT, values).fetchone()
            return None if row is None else run_of(row)

        return await self._db.read(find)

    async def get(self, run_id: RunId) -> RunRecord:
        return await self._db.read(lambda c: get_run(c, run_id))

    async def mark_dispatched(self, run_id: RunId) -> None:
        if self.keeps_dispatches:
            await self._db.write(lambda c: c.execute(MARK_DISPATCHED, (self._db.now_ms(), run_id)).rowcount)

    async def begin(self, run_id: RunId, attempt: int) -> RunRecord | None:
        return await self._db.write(lambda c: _begin(c, run_id, attempt, self._db.now_ms()))

    async def beat(self, holdings: Collection[Holding]) -> frozenset[RunId]:
        def beat(connection: sqlite3.Connection) -> frozenset[RunId]:
            now = self._db.now_ms()
            return frozenset(held.run_id for held in holdings if not _beat(connection, held, now))

        return await self._db.write(beat) if holdings else frozenset()

    async def finish(
        self,
        holding: Holding,
        status: RunStatus,
        *,
        end: Progress | None = None,
        error: str | None = None,
        last_beat: datetime | None = None,
    ) -> bool:
        def finish(connection: sqlite3.Connection) -> bool:
            values = {
                "run": holding.run_id,
                "attempt": holding.attempt,
                "status": status.value,
                "error": error,
                "now": self._db.now_ms(),
                "last_beat": maybe_ms(last_beat),
                **end_values(end),
            }
            return connection.execute(FINISH, values).rowcount > 0

        return await self._db.write(finish)


def _begin(connection: sqlite3.Connection, run_id: RunId, attempt: int, now: int) -> RunRecord | None:
    row = connection.execute(RAISE_EPOCH, {"run": run_id, "attempt": attempt, "now": now}).fetchone()
    if row is not None:
        values = {"run": run_id, "attempt": attempt, "epoch": row["epoch"], "now": now}
        connection.execute(BEGIN, values)
    run = get_run(connection, run_id)
    return None if row is None else run


def _beat(connection: sqlite3.Connection, holding: Holding, now: int) -> bool:
    """Refresh one heartbeat if it may be; tell whether the holder may go on."""
    values = {"run": holding.run_id, "attempt": holding.attempt, "now": now}
    row = connection.execute(BEAT, values).fetchone()
    return row is not None and bool(row["is_current"])
