"""The store of sessions in Postgres."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import attrs

from sessions_adapters.postgres.database import PostgresDatabase
from sessions_adapters.postgres.run_rows import RUN_COLUMNS, history_of, run_parameters, run_values
from sessions_adapters.postgres.session_rows import (
    SESSION_COLUMNS,
    SESSION_VALUES,
    open_at,
    session_of,
    session_values,
)
from sessions_adapters.postgres.values import bindable, maybe_json
from sessions_core.domain.claim import Claim
from sessions_core.domain.ids import EnvironmentId, RunId, SessionId, is_friendly_id
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Creation, Session, SessionRun, SessionUpdate, Unset
from sessions_core.errors import SessionNotFoundError, StoreUnavailableError
from sessions_core.ports.session_store import SessionStore

FIND_BY_ID: Final = "select * from session where id = $1 and environment_id = $2"
FIND_BY_EXTERNAL_ID: Final = "select * from session where external_id = $1 and environment_id = $2"
FIND_MANY: Final = "select * from session where id = any($1::text[]) and environment_id = $2"
CREATE: Final = f"""
    with made as (
        insert into session ({SESSION_COLUMNS}) values ({SESSION_VALUES})
        on conflict (environment_id, external_id) do update
            set trigger_config = excluded.trigger_config, updated_at = now_or($46)
            where session.task_identifier = excluded.task_identifier and {open_at("now_or($46)")}
        returning session.*
    ), started as (
        insert into run ({RUN_COLUMNS}) select {run_parameters(22)} from made where made.id = $1
    )
    select * from made
"""  # noqa: S608 - a constant
UPDATE: Final = """
    update session set
        tags = case when $3 then $4::text[] else tags end,
        metadata = case when $5 then $6::text::json else metadata end,
        updated_at = now_or($7)
    where id = $1 and environment_id = $2
    returning *
"""
CLOSE: Final = """
    update session set closed_at = now_or($6), closed_reason = $3, updated_at = now_or($6)
    where id = $1 and environment_id = $2 and closed_at is null
        and ($4::text is null or current_run_id = $4) and ($5::bigint is null or epoch = $5)
    returning *
"""
SEAL: Final = "update session set sealed_at = now_or($2) where id = $1 and sealed_at is null"
CLAIM: Final = f"""
    with claimed as (
        update session set current_run_id = $1, current_run_version = $7, updated_at = now_or($29)
        where session.id = $2 and session.environment_id = $25 and session.current_run_version = $26
            and ($27::text is null or session.current_run_id = $27) and ($28::bigint is null or session.epoch = $28)
            and {open_at("now_or($29)")}
        returning session.id
    )
    insert into run ({RUN_COLUMNS}) select {run_parameters(1)} from claimed
"""  # noqa: S608 - a constant
LIST_RUNS: Final = """
    select run.* from run join session on session.id = run.session_id
    where run.session_id = $1 and session.environment_id = $2
    order by run.version desc limit $3
"""
TOUCH: Final = "update schema_version set number = number where part = 'core' and number = 1"

_ATTEMPTS: Final = 3


@attrs.define
class PostgresSessionStore(SessionStore):
    """Keeps sessions and claims their runs. Every change is one statement."""

    _db: PostgresDatabase

    async def create(self, session: Session, run: RunRecord) -> Creation:
        claimed = attrs.evolve(session, current_run_id=run.id, current_run_version=run.version)
        for _ in range(_ATTEMPTS):
            rows = await self._db.change(CREATE, *session_values(claimed), *run_values(run), self._db.at())
            if rows:
                return Creation(session=session_of(rows[0]), is_new=rows[0]["id"] == session.id, refreshed=True)
            assert session.external_id is not None, "without one there is no conflict"
            stored = await self.find(session.environment.id, session.external_id)
            if stored is not None:
                return Creation(session=stored, is_new=False, refreshed=False)
        raise StoreUnavailableError  # somebody deletes sessions as fast as they are made

    async def find(self, environment_id: EnvironmentId, name: str) -> Session | None:
        statement = FIND_BY_ID if is_friendly_id(name) else FIND_BY_EXTERNAL_ID
        row = await self._db.fetchrow(statement, bindable(name), bindable(environment_id))
        return None if row is None else session_of(row)

    async def find_many(self, environment_id: EnvironmentId, ids: Collection[SessionId]) -> list[Session]:
        rows = await self._db.fetch(FIND_MANY, [bindable(name) for name in ids], bindable(environment_id))
        return self._db.pages.readable(rows, session_of)

    async def update(self, environment_id: EnvironmentId, session_id: SessionId, change: SessionUpdate) -> Session:
        tags = None if isinstance(change.tags, Unset) else change.tags
        metadata = None if isinstance(change.metadata, Unset) else maybe_json(change.metadata)
        rows = await self._db.change(
            UPDATE,
            bindable(session_id),
            bindable(environment_id),
            tags is not None,
            tags,
            not isinstance(change.metadata, Unset),
            metadata,
            self._db.at(),
        )
        if not rows:
            raise SessionNotFoundError(session_id)
        return session_of(rows[0])

    async def close(
        self,
        environment_id: EnvironmentId,
        session_id: SessionId,
        reason: str | None,
        *,
        expected_run: RunId | None = None,
        expected_epoch: int | None = None,
    ) -> Session:
        values = (bindable(session_id), bindable(environment_id), reason, expected_run, expected_epoch, self._db.at())
        rows = await self._db.change(CLOSE, *values)
        session = session_of(rows[0]) if rows else await self.find(environment_id, session_id)
        if session is None:
            raise SessionNotFoundError(session_id)
        return session

    async def mark_sealed(self, session_id: SessionId) -> None:
        await self._db.execute(SEAL, bindable(session_id), self._db.at())

    async def claim_run(
        self,
        run: RunRecord,
        *,
        expected_version: int,
        expected_run: RunId | None = None,
        expected_epoch: int | None = None,
    ) -> Claim:
        expected = (run.environment.id, expected_version, expected_run, expected_epoch)
        claimed = await self._db.execute(CLAIM, *run_values(run), *expected, self._db.at())
        return Claim.WON if claimed else Claim.LOST

    async def list_runs(self, environment_id: EnvironmentId, session_id: SessionId, limit: int) -> list[SessionRun]:
        rows = await self._db.fetch(LIST_RUNS, bindable(session_id), bindable(environment_id), limit)
        return [history_of(row) for row in rows]

    async def check(self) -> None:
        await self._db.execute(TOUCH)
