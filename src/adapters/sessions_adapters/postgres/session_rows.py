"""Sessions as rows."""

from __future__ import annotations

import json
from typing import Any, Final

import asyncpg

from sessions_adapters.postgres.values import maybe_json, maybe_moment, maybe_value
from sessions_adapters.shared.unreadable import stored
from sessions_core.domain.channel import encode_json
from sessions_core.domain.environment import Environment
from sessions_core.domain.session import Session
from sessions_core.domain.trigger_config import TriggerConfig

SESSION_COLUMNS: Final = (
    "id, environment_id, organization_id, project_id, environment_type, external_id, type, task_identifier, "
    "trigger_config, tags, metadata, current_run_id, current_run_version, epoch, closed_at, closed_reason, expires_at, "
    "sealed_at, is_test, created_at, updated_at"
)
SESSION_VALUES: Final = "$1, $2, $3, $4, $5, $6, $7, $8, $9::text::json, $10, $11::text::json, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21"
"""The first 21 parameters: :func:`session_values`."""


def open_at(moment: str) -> str:
    """Return the condition that a session is neither closed nor expired at *moment*, an expression."""
    return f"session.closed_at is null and (session.expires_at is null or session.expires_at > {moment})"


def session_values(session: Session) -> tuple[Any, ...]:
    """Return the values of :data:`SESSION_COLUMNS`."""
    environment = session.environment
    return (
        session.id,
        environment.id,
        environment.organization_id,
        environment.project_id,
        environment.type.value,
        session.external_id,
        session.type,
        session.task,
        encode_json(session.trigger_config.members),
        session.tags,
        maybe_json(session.metadata),
        session.current_run_id,
        session.current_run_version,
        session.epoch,
        maybe_moment(session.closed_at),
        session.closed_reason,
        session.expires_at,
        maybe_moment(session.sealed_at),
        session.is_test,
        session.created_at,
        session.updated_at,
    )


def environment_of(row: asyncpg.Record) -> Environment:
    """Return whose *row* is."""
    return Environment(
        id=row["environment_id"],
        organization_id=row["organization_id"],
        project_id=row["project_id"],
        type=row["environment_type"],
    )


@stored
def session_of(row: asyncpg.Record) -> Session:
    """Return the session in *row*.

    Raises:
        StoreUnavailableError: It breaks a rule of this version.
    """
    return Session(
        id=row["id"],
        environment=environment_of(row),
        type=row["type"],
        task=row["task_identifier"],
        trigger_config=TriggerConfig(json.loads(row["trigger_config"])),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        external_id=row["external_id"],
        tags=tuple(row["tags"]),
        metadata=maybe_value(row["metadata"]),
        current_run_id=row["current_run_id"],
        current_run_version=row["current_run_version"],
        epoch=row["epoch"],
        closed_at=row["closed_at"],
        closed_reason=row["closed_reason"],
        expires_at=row["expires_at"],
        sealed_at=row["sealed_at"],
        is_test=row["is_test"],
    )
