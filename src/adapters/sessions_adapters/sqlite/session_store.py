"""The store of sessions in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from typing import Any, Final

import attrs

from sessions_adapters.sqlite import schema
from sessions_adapters.sqlite.database import SqliteDatabase, for_owner
from sessions_adapters.sqlite.run_rows import history_of, insert_run
from sessions_adapters.sqlite.session_rows import OPEN, insert_session, replace_tags, session_of
from sessions_adapters.sqlite.values import bindable, from_ms, json_list, maybe_json
from sessions_core.domain.channel import encode_json
from sessions_core.domain.claim import Claim
from sessions_core.domain.ids import EnvironmentId, RunId, SessionId, is_friendly_id
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Creation, Session, SessionRun, SessionUpdate
from sessions_core.errors import SessionNotFoundError
from sessions_core.ports.session_store import SessionStore

FIND_BY_ID: Final = "select * from session where id = ? and environment = ?"
FIND_BY_EXTERNAL_ID: Final = "select * from session where external_id = ? and environment = ?"
FIND_MANY: Final = """
    select * from session where id in (select value from json_each(?)) and environment = ?
"""
REFRESH: Final = f"""
    update session set trigger_config = :trigger_config, updated_at = :now
    where environment = :environment and external_id = :external_id and task = :task and {OPEN}
    returning *
"""  # noqa: S608 - a constant
UPDATE: Final = """
    update session set tags = :tags, metadata = :metadata, updated_at = :now where id = :id returning *
"""
EXPECTED: Final = """
    (:expected_run is null or current_run_id = :expected_run) and (:expected_epoch is null or epoch = :expected_epoch)
"""
CLOSE: Final = f"""
    update session set closed_at = :now, closed_reason = :reason, updated_at = :now
    where id = :id and environment = :environment and closed_at is null and {EXPECTED}
"""  # noqa: S608 - a constant
SEAL: Final = "update session set sealed_at = ? where id = ? and sealed_at is null"
CLAIM: Final = f"""
    update session set current_run_id = :run, current_run_version = :version, updated_at = :now
    where id = :id and environment = :environment and current_run_version = :expected_version
        and {EXPECTED} and {OPEN}
"""  # noqa: S608 - a constant
LIST_RUNS: Final = """
    select * from run where session_id = (select id from session where id = ? and environment = ?)
    order by version desc limit ?
"""


@attrs.define
class SqliteSessionStore(SessionStore):
    """Keeps sessions and claims their runs. Every change is one transaction."""

    _db: SqliteDatabase = attrs.field(validator=for_owner)

    async def create(self, session: Session, run: RunRecord) -> Creation:
        return await self._db.write(lambda c: _create(c, session, run, self._db.now_ms()))

    async def find(self, environment_id: EnvironmentId, name: str) -> Session | None:
        return await self._db.read(lambda c: _find(c, environment_id, name))

    async def find_many(self, environment_id: EnvironmentId, ids: Collection[SessionId]) -> list[Session]:
        values = (json_list(ids), bindable(environment_id))
        return await self._db.read(lambda c: self._db.results.read(c.execute(FIND_MANY, values), session_of))

    async def update(self, environment_id: EnvironmentId, session_id: SessionId, change: SessionUpdate) -> Session:
        return await self._db.write(lambda c: _update(c, environment_id, session_id, change, self._db.now_ms()))

    async def close(
        self,
        environment_id: EnvironmentId,
        session_id: SessionId,
        reason: str | None,
        *,
        expected_run: RunId | None = None,
        expected_epoch: int | None = None,
    ) -> Session:
        def run(connection: sqlite3.Connection) -> Session:
            values = {
                "id": session_id,
                "environment": environment_id,
                "reason": reason,
                "expected_run": expected_run,
                "expected_epoch": expected_epoch,
                "now": self._db.now_ms(),
            }
            connection.execute(CLOSE, values)
            return _get(connection, environment_id, session_id)

        return await self._db.write(run)

    async def mark_sealed(self, session_id: SessionId) -> None:
        await self._db.write(lambda c: _count(c, SEAL, (self._db.now_ms(), session_id)))

    async def claim_run(
        self,
        run: RunRecord,
        *,
        expected_version: int,
        expected_run: RunId | None = None,
        expected_epoch: int | None = None,
    ) -> Claim:
        def claim(connection: sqlite3.Connection) -> Claim:
            values = {
                "run": run.id,
                "version": run.version,
                "id": run.session_id,
                "environment": run.environment.id,
                "expected_version": expected_version,
                "expected_run": expected_run,
                "expected_epoch": expected_epoch,
                "now": self._db.now_ms(),
            }
            if not _count(connection, CLAIM, values):
                return Claim.LOST
            insert_run(connection, run)
            return Claim.WON

        return await self._db.write(claim)

    async def list_runs(self, environment_id: EnvironmentId, session_id: SessionId, limit: int) -> list[SessionRun]:
        values = (bindable(session_id), bindable(environment_id), limit)
        return await self._db.read(lambda c: [history_of(row) for row in c.execute(LIST_RUNS, values)])

    async def check(self) -> None:
        await self._db.write(schema.rewrite_version)


def _create(connection: sqlite3.Connection, session: Session, run: RunRecord, now: int) -> Creation:
    stored = None
    if session.external_id is not None:
        refreshed = _refresh(connection, session, now)
        if refreshed is not None:
            return Creation(session=refreshed, is_new=False, refreshed=True)
        stored = _find(connection, session.environment.id, session.external_id)
    if stored is not None:
        return Creation(session=stored, is_new=False, refreshed=False)
    return Creation(session=_insert(connection, session, run), is_new=True, refreshed=True)


def _refresh(connection: sqlite3.Connection, session: Session, now: int) -> Session | None:
    values = {
        "trigger_config": encode_json(session.trigger_config.members),
        "environment": session.environment.id,
        "external_id": session.external_id,
        "task": session.task,
        "now": now,
    }
    row = connection.execute(REFRESH, values).fetchone()
    return None if row is None else session_of(row)


def _insert(connection: sqlite3.Connection, session: Session, run: RunRecord) -> Session:
    claimed = attrs.evolve(session, current_run_id=run.id, current_run_version=run.version)
    insert_session(connection, claimed)
    insert_run(connection, run)
    return claimed


def _find(connection: sqlite3.Connection, environment_id: EnvironmentId, name: str) -> Session | None:
    statement = FIND_BY_ID if is_friendly_id(name) else FIND_BY_EXTERNAL_ID
    row = connection.execute(statement, (bindable(name), bindable(environment_id))).fetchone()
    return None if row is None else session_of(row)


def _get(connection: sqlite3.Connection, environment_id: EnvironmentId, session_id: SessionId) -> Session:
    session = _find(connection, environment_id, session_id)
    if session is None:
        raise SessionNotFoundError(session_id)
    return session


def _update(
    connection: sqlite3.Connection,
    environment_id: EnvironmentId,
    session_id: SessionId,
    change: SessionUpdate,
    now: int,
) -> Session:
    old = _get(connection, environment_id, session_id)
    new = change.apply(old, from_ms(now))
    values = {"tags": json_list(new.tags), "metadata": maybe_json(new.metadata), "now": now, "id": new.id}
    row = connection.execute(UPDATE, values).fetchone()
    replace_tags(connection, old, new)
    return session_of(row)


def _count(connection: sqlite3.Connection, statement: str, values: Mapping[str, Any] | tuple[Any, ...]) -> int:
    """Return how many rows *statement* has changed."""
    return connection.execute(statement, values).rowcount
