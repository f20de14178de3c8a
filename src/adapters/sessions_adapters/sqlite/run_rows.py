"""Runs as rows. Whose a run is, and its channels' key, stand in its session's row."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final

from sessions_adapters.shared.unreadable import stored
from sessions_adapters.sqlite.session_rows import environment_of
from sessions_adapters.sqlite.values import from_ms, maybe_moment, maybe_ms, to_ms
from sessions_core.domain.channel import encode_json
from sessions_core.domain.ids import RunId, addressing_key
from sessions_core.domain.run import Progress, RunRecord
from sessions_core.domain.session import SessionRun
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.errors import RunNotFoundError

WAITS_FOR_WORKER: Final = "status in ('DELAYED', 'PENDING', 'RETRYING_AFTER_FAILURE')"
"""Condition, word for word that of the partial indexes."""
IS_ALIVE: Final = "status in ('DELAYED', 'PENDING', 'EXECUTING', 'RETRYING_AFTER_FAILURE')"

SELECT_RUN: Final = """
    select run.*, session.environment, session.organization, session.project, session.environment_type,
        session.external_id
    from run cross join session on session.id = run.session_id
"""
FIND_RUN: Final = SELECT_RUN + "where run.id = ?"
INSERT_RUN: Final = """
    insert into run (
        id, session_id, task, payload, config, reason, version, created_at, status, attempt, epoch, previous_run_id,
        start_cursor, start_out_tail, end_cursor, end_out_tail, failures, dispatch_after, dispatched_at, started_at,
        heartbeat_at, ended_at, settled_at, error
    ) values (
        :id, :session_id, :task, :payload, :config, :reason, :version, :created_at, :status, :attempt, :epoch,
        :previous_run_id, :start_cursor, :start_out_tail, :end_cursor, :end_out_tail, :failures, :dispatch_after,
        :dispatched_at, :started_at, :heartbeat_at, :ended_at, :settled_at, :error
    )
"""


def insert_run(connection: sqlite3.Connection, run: RunRecord) -> None:
    """Store a new run, and with it the line in its session's history."""
    connection.execute(INSERT_RUN, _values(run))


def get_run(connection: sqlite3.Connection, run_id: RunId) -> RunRecord:
    """Return a run by its id.

    Raises:
        RunNotFoundError: No such run.
    """
    row = connection.execute(FIND_RUN, (run_id,)).fetchone()
    if row is None:
        raise RunNotFoundError(run_id)
    return run_of(row)


def _values(run: RunRecord) -> dict[str, Any]:
    return {
        "id": run.id,
        "session_id": run.session_id,
        "task": run.task,
        "payload": encode_json(run.payload),
        "config": encode_json(run.config.members),
        "reason": run.reason,
        "version": run.version,
        "created_at": to_ms(run.created_at),
        "status": run.status.value,
        "attempt": run.attempt,
        "epoch": run.epoch,
        "previous_run_id": run.previous_run_id,
        "start_cursor": run.start.cursor,
        "start_out_tail": run.start.out_tail,
        **end_values(run.end),
        "failures": run.failures,
        "dispatch_after": maybe_ms(run.dispatch_after),
        "dispatched_at": maybe_ms(run.dispatched_at),
        "started_at": maybe_ms(run.started_at),
        "heartbeat_at": maybe_ms(run.heartbeat_at),
        "ended_at": maybe_ms(run.ended_at),
        "settled_at": maybe_ms(run.settled_at),
        "error": run.error,
    }


def end_values(end: Progress | None) -> dict[str, int | None]:
    """Return the columns that say how far a run had come at its end."""
    return {
        "end_cursor": None if end is None else end.cursor,
        "end_out_tail": None if end is None else end.out_tail,
    }


@stored
def run_of(row: sqlite3.Row) -> RunRecord:
    """Return the run in a row of :data:`SELECT_RUN`.

    Raises:
        StoreUnavailableError: It breaks a rule of this version.
    """
    return RunRecord(
        id=row["id"],
        session_id=row["session_id"],
        environment=environment_of(row),
        key=addressing_key(row["session_id"], row["external_id"]),
        task=row["task"],
        payload=json.loads(row["payload"]),
        config=TriggerConfig(json.loads(row["config"])),
        reason=row["reason"],
        version=row["version"],
        created_at=from_ms(row["created_at"]),
        status=row["status"],
        attempt=row["attempt"],
        epoch=row["epoch"],
        previous_run_id=row["previous_run_id"],
        start=Progress(row["start_cursor"], row["start_out_tail"]),
        end=None if row["end_cursor"] is None else Progress(row["end_cursor"], row["end_out_tail"]),
        failures=row["failures"],
        dispatch_after=maybe_moment(row["dispatch_after"]),
        dispatched_at=maybe_moment(row["dispatched_at"]),
        started_at=maybe_moment(row["started_at"]),
        heartbeat_at=maybe_moment(row["heartbeat_at"]),
        ended_at=maybe_moment(row["ended_at"]),
        settled_at=maybe_moment(row["settled_at"]),
        error=row["error"],
    )


def history_of(row: sqlite3.Row) -> SessionRun:
    """Return the history line that a run's row is."""
    return SessionRun(
        session_id=row["session_id"],
        run_id=row["id"],
        reason=row["reason"],
        triggered_at=from_ms(row["created_at"]),
    )
