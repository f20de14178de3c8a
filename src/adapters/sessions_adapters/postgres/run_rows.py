"""Runs as rows. Whose a run is, and its channels' key, stand in its session's row."""

from __future__ import annotations

import json
from typing import Any, Final

import asyncpg

from sessions_adapters.postgres.session_rows import environment_of
from sessions_adapters.postgres.values import maybe_moment, restored, storable
from sessions_adapters.shared.unreadable import stored
from sessions_core.domain.channel import encode_json
from sessions_core.domain.ids import addressing_key
from sessions_core.domain.run import Progress, RunRecord
from sessions_core.domain.session import SessionRun
from sessions_core.domain.trigger_config import TriggerConfig

WAITS_FOR_WORKER: Final = "run.status in ('DELAYED', 'PENDING', 'RETRYING_AFTER_FAILURE')"
"""Condition, that of the partial indexes."""
IS_ALIVE: Final = "run.status in ('DELAYED', 'PENDING', 'EXECUTING', 'RETRYING_AFTER_FAILURE')"

SELECT_RUN: Final = """
    select run.*, session.environment_id, session.organization_id, session.project_id, session.environment_type,
        session.external_id
    from run join session on session.id = run.session_id
"""
RUN_COLUMNS: Final = (
    "id, session_id, task_identifier, payload, config, reason, version, created_at, status, attempt, epoch, "
    "previous_run_id, start_cursor, start_out_tail, end_cursor, end_out_tail, failures, dispatch_after, dispatched_at, "
    "started_at, heartbeat_at, ended_at, settled_at, error"
)
_TYPES: Final = (
    *("text", "text", "text", "text", "text", "text", "bigint", "timestamptz", "text", "bigint", "bigint"),
    *("text", "bigint", "bigint", "bigint", "bigint", "bigint", *["timestamptz"] * 6, "text"),
)
_JSON: Final = (3, 4)


def run_parameters(first: int) -> str:
    """Return the parameters for :func:`run_values`, the first of which has this number."""
    return ", ".join(
        f"${number}::{kind}" + ("::json" if number - first in _JSON else "")
        for number, kind in enumerate(_TYPES, first)
    )


def run_values(run: RunRecord) -> tuple[Any, ...]:
    """Return the values of :data:`RUN_COLUMNS`."""
    return (
        run.id,
        run.session_id,
        run.task,
        encode_json(run.payload),
        encode_json(run.config.members),
        run.reason,
        run.version,
        maybe_moment(run.created_at),
        run.status.value,
        run.attempt,
        run.epoch,
        run.previous_run_id,
        run.start.cursor,
        run.start.out_tail,
        *end_values(run.end),
        run.failures,
        maybe_moment(run.dispatch_after),
        maybe_moment(run.dispatched_at),
        maybe_moment(run.started_at),
        maybe_moment(run.heartbeat_at),
        maybe_moment(run.ended_at),
        maybe_moment(run.settled_at),
        None if run.error is None else storable(run.error),
    )


def end_values(end: Progress | None) -> tuple[int | None, int | None]:
    """Return the columns that say how far a run had come at its end."""
    return (None, None) if end is None else (end.cursor, end.out_tail)


@stored
def run_of(row: asyncpg.Record) -> RunRecord:
    """Return the run in a row of :data:`SELECT_RUN`.

    Raises:
        StoreUnavailableError: It breaks a rule of this version.
    """
    return RunRecord(
        id=row["id"],
        session_id=row["session_id"],
        environment=environment_of(row),
        key=addressing_key(row["session_id"], row["external_id"]),
        task=row["task_identifier"],
        payload=json.loads(row["payload"]),
        config=TriggerConfig(json.loads(row["config"])),
        reason=row["reason"],
        version=row["version"],
        created_at=row["created_at"],
        status=row["status"],
        attempt=row["attempt"],
        epoch=row["epoch"],
        previous_run_id=row["previous_run_id"],
        start=Progress(row["start_cursor"], row["start_out_tail"]),
        end=None if row["end_cursor"] is None else Progress(row["end_cursor"], row["end_out_tail"]),
        failures=row["failures"],
        dispatch_after=row["dispatch_after"],
        dispatched_at=row["dispatched_at"],
        started_at=row["started_at"],
        heartbeat_at=row["heartbeat_at"],
        ended_at=row["ended_at"],
        settled_at=row["settled_at"],
        error=None if row["error"] is None else restored(row["error"]),
    )


def history_of(row: asyncpg.Record) -> SessionRun:
    """Return the history line that a run's row is."""
    return SessionRun(
        session_id=row["session_id"], run_id=row["id"], reason=row["reason"], triggered_at=row["created_at"]
    )
