"""From changes that nobody takes to dead letters."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sessions_core.domain.channel import encode_json
from sessions_core.domain.session import Session
from sessions_core.errors import SessionsError
from sessions_core.ports.change_feed import Change, UnreadableChange
from sessions_core.ports.dead_letters import DeadLetter

MOST_OF_A_CAUSE: Final = 1000


def letter_of_unreadable(change: UnreadableChange) -> DeadLetter:
    """Return the letter of a change that could not be read."""
    return DeadLetter(
        kind=change.kind,
        session=change.session,
        version=change.version,
        reason=change.reason,
        columns=change.columns,
    )


def letter_of_refused(change: Change, error: SessionsError) -> DeadLetter:
    """Return the letter of a change that the index does not take."""
    return DeadLetter(
        kind=change.kind,
        session=change.row.session.id,
        version=change.row.version,
        reason=_reason(error),
        columns=_columns(change.row.session),
    )


def _reason(error: SessionsError) -> str:
    """Return what the index says, in a form that every store can keep."""
    if error.__cause__ is None:
        return str(error)
    cause = str(error.__cause__).replace("\x00", "").encode(errors="replace").decode()
    return f"{error}: {cause[:MOST_OF_A_CAUSE]}"


def _columns(session: Session) -> dict[str, str | None]:
    environment = session.environment
    return {
        "id": session.id,
        "environment_id": environment.id,
        "organization_id": environment.organization_id,
        "project_id": environment.project_id,
        "environment_type": environment.type.value,
        "external_id": session.external_id,
        "type": session.type,
        "task_identifier": session.task,
        "trigger_config": encode_json(session.trigger_config.members),
        "tags": encode_json(session.tags),
        "metadata": None if session.metadata is None else encode_json(session.metadata),
        "current_run_id": session.current_run_id,
        "current_run_version": str(session.current_run_version),
        "epoch": str(session.epoch),
        "closed_at": _moment(session.closed_at),
        "closed_reason": session.closed_reason,
        "expires_at": _moment(session.expires_at),
        "sealed_at": _moment(session.sealed_at),
        "is_test": "true" if session.is_test else "false",
        "created_at": _moment(session.created_at),
        "updated_at": _moment(session.updated_at),
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
