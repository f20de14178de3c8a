"""Sessions as rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from sessions_adapters.shared.unreadable import stored
from sessions_adapters.sqlite.values import (
    from_ms,
    json_list,
    maybe_json,
    maybe_moment,
    maybe_ms,
    maybe_value,
    to_ms,
)
from sessions_core.domain.channel import encode_json
from sessions_core.domain.environment import Environment
from sessions_core.domain.session import Session
from sessions_core.domain.trigger_config import TriggerConfig

OPEN: Final = "closed_at is null and (expires_at is null or expires_at > :now)"
"""Condition: neither closed nor expired at ``:now``."""

INSERT_SESSION: Final = """
    insert into session (
        id, environment, organization, project, environment_type, external_id, type, task, trigger_config, tags,
        metadata, created_at, updated_at, current_run_id, current_run_version, epoch, closed_at, closed_reason,
        expires_at, sealed_at, is_test
    ) values (
        :id, :environment, :organization, :project, :environment_type, :external_id, :type, :task, :trigger_config,
        :tags, :metadata, :created_at, :updated_at, :current_run_id, :current_run_version, :epoch, :closed_at,
        :closed_reason, :expires_at, :sealed_at, :is_test
    )
"""
INSERT_TAG: Final = "insert into session_tag (environment, tag, created_at, id) values (?, ?, ?, ?)"
DELETE_TAG: Final = "delete from session_tag where environment = ? and tag = ? and created_at = ? and id = ?"


def environment_values(environment: Environment) -> dict[str, Any]:
    """Return the columns that say whose a row is."""
    return {
        "environment": environment.id,
        "organization": environment.organization_id,
        "project": environment.project_id,
        "environment_type": environment.type.value,
    }


def environment_of(row: sqlite3.Row) -> Environment:
    """Return whose *row* is."""
    return Environment(
        id=row["environment"],
        organization_id=row["organization"],
        project_id=row["project"],
        type=row["environment_type"],
    )


def insert_session(connection: sqlite3.Connection, session: Session) -> None:
    """Store a new session."""
    connection.execute(INSERT_SESSION, _values(session))
    connection.executemany(INSERT_TAG, _tag_rows(session))


def replace_tags(connection: sqlite3.Connection, old: Session, new: Session) -> None:
    """Make the index of tags follow a change of a session."""
    connection.executemany(DELETE_TAG, _tag_rows(old))
    connection.executemany(INSERT_TAG, _tag_rows(new))


def _tag_rows(session: Session) -> Iterable[tuple[Any, ...]]:
    created_at = to_ms(session.created_at)
    return [(session.environment.id, tag, created_at, session.id) for tag in set(session.tags)]


def _values(session: Session) -> dict[str, Any]:
    return {
        **environment_values(session.environment),
        "id": session.id,
        "external_id": session.external_id,
        "type": session.type,
        "task": session.task,
        "trigger_config": encode_json(session.trigger_config.members),
        "tags": json_list(session.tags),
        "metadata": maybe_json(session.metadata),
        "created_at": to_ms(session.created_at),
        "updated_at": to_ms(session.updated_at),
        "current_run_id": session.current_run_id,
        "current_run_version": session.current_run_version,
        "epoch": session.epoch,
        "closed_at": maybe_ms(session.closed_at),
        "closed_reason": session.closed_reason,
        "expires_at": maybe_ms(session.expires_at),
        "sealed_at": maybe_ms(session.sealed_at),
        "is_test": session.is_test,
    }


@stored
def session_of(row: sqlite3.Row) -> Session:
    """Return the session in *row*.

    Raises:
        StoreUnavailableError: It breaks a rule of this version.
    """
    return Session(
        id=row["id"],
        environment=environment_of(row),
        type=row["type"],
        task=row["task"],
        trigger_config=TriggerConfig(json.loads(row["trigger_config"])),
        created_at=from_ms(row["created_at"]),
        updated_at=from_ms(row["updated_at"]),
        external_id=row["external_id"],
        tags=tuple(json.loads(row["tags"])),
        metadata=maybe_value(row["metadata"]),
        current_run_id=row["current_run_id"],
        current_run_version=row["current_run_version"],
        epoch=row["epoch"],
        closed_at=maybe_moment(row["closed_at"]),
        closed_reason=row["closed_reason"],
        expires_at=maybe_moment(row["expires_at"]),
        sealed_at=maybe_moment(row["sealed_at"]),
        is_test=bool(row["is_test"]),
    )
