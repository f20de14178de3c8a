"""The bodies that are posted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sessions_core.domain.channel import encode_json
from sessions_core.domain.ids import RunId, is_friendly_id
from sessions_core.domain.run import RunRecord

REQUESTED: Final = "run.requested"
CANCELED: Final = "run.canceled"
OPTIONS: Final = (
    "machine",
    "queue",
    "concurrencyKey",
    "tags",
    "maxAttempts",
    "maxDuration",
    "lockToVersion",
    "region",
    "ttl",
)
"""Members of a trigger configuration that an engine may heed."""


def run_request(run: RunRecord, token: str | None, now: datetime) -> bytes:
    """Return the body that asks an engine to carry out *run*, with a token for it if there is one."""
    members = run.config.members
    return _message(
        REQUESTED,
        now,
        {
            "runId": run.id,
            "attempt": run.attempt + 1,
            "sessionId": run.session_id,
            "externalId": None if is_friendly_id(run.key) else run.key,
            "taskIdentifier": run.task,
            "reason": run.reason,
            "previousRunId": run.previous_run_id,
            "payload": dict(run.payload),
            "options": {name: members[name] for name in OPTIONS if members.get(name) is not None},
            "token": token,
        },
    )


def cancellation(run_id: RunId, now: datetime) -> bytes:
    """Return the body that asks an engine to stop a run."""
    return _message(CANCELED, now, {"runId": run_id})


def _message(kind: str, now: datetime, data: Mapping[str, Any]) -> bytes:
    text = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return encode_json({"type": kind, "timestamp": text, "data": data}).encode()
