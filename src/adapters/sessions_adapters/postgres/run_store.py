"""The store of runs in Postgres. It looks at the rows that the store of sessions made."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Final

import asyncpg
import attrs

from sessions_adapters.postgres.database import PostgresDatabase
from sessions_adapters.postgres.run_rows import IS_ALIVE, SELECT_RUN, end_values, run_of
from sessions_adapters.postgres.session_rows import open_at
from sessions_adapters.postgres.values import bindable, storable
from sessions_core.domain.ids import EnvironmentId, RunId
from sessions_core.domain.run import Holding, Progress, RunRecord
from sessions_core.domain.status import RunStatus
from sessions_core.errors import RunNotFoundError
from sessions_core.ports.run_store import RunStore

GET: Final = SELECT_RUN + "where run.id = $1"
FIND: Final = SELECT_RUN + "where run.id = $1 and session.environment_id = $2"
MARK_DISPATCHED: Final = "update run set dispatched_at = now_or($2) where id = $1"
# The run's row is locked first, so of two racing calls the second one looks at what the first one has done.
BEGIN: Final = f"""
    with held as (
        select run.session_id from run where run.id = $1 and run.attempt = $2 - 1 and {IS_ALIVE} for update
    ), raised as (
        update session set epoch = session.epoch + 1 from held
        where session.id = held.session_id and session.current_run_id = $1 and {open_at("now_or($3)")}
        returning session.epoch
    )
    update run set status = 'EXECUTING', attempt = $2, epoch = raised.epoch, heartbeat_at = now_or($3),
        started_at = coalesce(run.started_at, now_or($3))
    from raised where run.id = $1
"""  # noqa: S608 - a constant
BEAT: Final = """
    with held as (
        select * from unnest($1::text[], $2::bigint[]) as given (run_id, attempt)
    ), beaten as (
        update run set heartbeat_at = now_or($3) from held
        where run.id = held.run_id and run.attempt = held.attempt and run.status = 'EXECUTING'
        returning run.id, run.session_id
    )
    select beaten.id from beaten join session on session.id = beaten.session_id
    where session.current_run_id = beaten.id
"""
FINISH: Final = f"""
    update run set status = $3, end_cursor = $4, end_out_tail = $5, error = $6, ended_at = now_or($7)
    where id = $1 and attempt = $2 and {IS_ALIVE} and ($8::timestamptz is null or heartbeat_at = $8)
"""  # noqa: S608 - a constant


@attrs.define
class PostgresRunStore(RunStore):
    """Keeps run records. Every change is one statement.

    Attributes:
        keeps_dispatches: Whether a dispatch lasts. False for an engine whose queue dies with its process: then nothing is
            noted, and the sweep hands a run out again until it has begun.
    """

    _db: PostgresDatabase
    keeps_dispatches: bool = True

    async def find(self, environment_id: EnvironmentId, run_id: RunId) -> RunRecord | None:
        row = await self._db.fetchrow(FIND, bindable(run_id), bindable(environment_id))
        return None if row is None else run_of(row)

    async def get(self, run_id: RunId) -> RunRecord:
        row = await self._db.fetchrow(GET, bindable(run_id))
        if row is None:
            raise RunNotFoundError(run_id)
        return run_of(row)

    async def mark_dispatched(self, run_id: RunId) -> None:
        if self.keeps_dispatches:
            await self._db.execute(MARK_DISPATCHED, bindable(run_id), self._db.at())

    async def begin(self, run_id: RunId, attempt: int) -> RunRecord | None:
        begun = await self._db.execute(BEGIN, bindable(run_id), attempt, self._db.at())
        run = await self.get(run_id)
        return run if begun else None

    async def beat(self, holdings: Collection[Holding]) -> frozenset[RunId]:
        if not holdings:
            return frozenset()
        runs, attempts = columns_of(holdings)
        return lost_of(runs, await self._db.change(BEAT, runs, attempts, self._db.at()))

    async def finish(
        self,
        holding: Holding,
        status: RunStatus,
        *,
        end: Progress | None = None,
        error: str | None = None,
        last_beat: datetime | None = None,
    ) -> bool:
        told = None if error is None else storable(error)
        values = (bindable(holding.run_id), holding.attempt, status.value, *end_values(end), told, self._db.at())
        return await self._db.execute(FINISH, *values, last_beat) > 0


def columns_of(holdings: Collection[Holding]) -> tuple[list[RunId], list[int]]:
    """Return the first two values of :data:`BEAT`."""
    return [held.run_id for held in holdings], [held.attempt for held in holdings]


def lost_of(runs: Collection[RunId], rows: Iterable[asyncpg.Record]) -> frozenset[RunId]:
    """Return those of *runs* whose holder must stop, from the rows of :data:`BEAT`."""
    return frozenset(runs) - {row["id"] for row in rows}
