"""Runs as our own table knows them, whatever engine carries them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from sessions_core.domain.channel import UPGRADE_REQUIRED, NewRecord, control_record
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import AddressingKey, RunId, SessionId, own_part
from sessions_core.domain.session import Session
from sessions_core.domain.status import RunStatus
from sessions_core.domain.trigger_config import TriggerConfig, build_payload

REASON_INITIAL = "initial"
REASON_CONTINUATION = "continuation"
REASON_UPGRADE = "upgrade"
REASON_MANUAL = "manual"
REASONS = frozenset({REASON_INITIAL, REASON_CONTINUATION, REASON_UPGRADE, REASON_MANUAL})


@attrs.frozen
class Progress:
    """How far a session had come.

    Attributes:
        cursor: The last ``in`` record that has been dealt with; -1 before the first one.
        out_tail: A position on ``out`` before which no turn-complete needs to be looked for again.
    """

    cursor: int = -1
    out_tail: int = 0


@attrs.frozen(kw_only=True)
class RunRecord:
    """One execution serving a session.

    Attributes:
        version: The session's ``current_run_version`` that this run's claim produced.
        attempt: How many attempts have begun.
        epoch: The epoch of the latest attempt; 0 before the first.
        start: Progress when the run was claimed.
        end: Progress when it ended; None while alive, or when it died without telling.
        failures: How many runs before this one died or failed at the very same cursor.
        dispatch_after: Do not dispatch earlier than this (backoff after a failure).
        settled_at: When somebody looked after what the ended run left behind.
    """

    id: RunId
    session_id: SessionId
    environment: Environment
    key: AddressingKey
    task: str
    payload: Mapping[str, Any]
    config: TriggerConfig
    reason: str
    version: int
    created_at: datetime
    status: RunStatus = attrs.field(default=RunStatus.PENDING, converter=RunStatus)
    attempt: int = 0
    epoch: int = 0
    previous_run_id: RunId | None = None
    start: Progress = Progress()
    end: Progress | None = None
    failures: int = 0
    dispatch_after: datetime | None = None
    dispatched_at: datetime | None = None
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None
    ended_at: datetime | None = None
    settled_at: datetime | None = None
    error: str | None = None

    @property
    def is_handed_over(self) -> bool:
        """Whether its predecessor asked for it."""
        return self.reason in (REASON_UPGRADE, REASON_MANUAL)

    @property
    def is_alive(self) -> bool:
        """Tell whether the run will still read its session's input."""
        return self.status.is_alive

    def has_waited_too_long(self, now: datetime) -> bool:
        """Tell whether the run has waited for a worker longer than its session's ``ttl`` allows."""
        ttl = self.config.ttl
        return ttl is not None and self.attempt == 0 and now - (self.dispatch_after or self.created_at) > ttl


def hand_over_notice(run: RunRecord) -> NewRecord:
    """Make the control record that tells readers of ``out`` that the session was handed over to *run*."""
    return control_record(UPGRADE_REQUIRED, part_id=own_part(f"upgrade-required:{run.version}"))


@attrs.frozen
class Holding:
    """One attempt of one run: what a worker holds, and must stop when it is no longer the latest."""

    run_id: RunId
    attempt: int


def first_run(session: Session, run_id: RunId, now: datetime) -> RunRecord:
    """Make the run that a new session starts with."""
    return _run(session, run_id, REASON_INITIAL, now, previous=None)


def next_run(
    session: Session,
    run_id: RunId,
    *,
    reason: str,
    now: datetime,
    previous: RunRecord | None,
    failures: int = 0,
    dispatch_after: datetime | None = None,
) -> RunRecord:
    """Make the run that replaces *previous*, going on where it stood."""
    run = _run(session, run_id, reason, now, previous=previous)
    status = RunStatus.PENDING if dispatch_after is None else RunStatus.DELAYED
    return attrs.evolve(run, failures=failures, dispatch_after=dispatch_after, status=status)


def _run(session: Session, run_id: RunId, reason: str, now: datetime, previous: RunRecord | None) -> RunRecord:
    previous_id = session.current_run_id if previous is None else previous.id
    return RunRecord(
        id=run_id,
        session_id=session.id,
        environment=session.environment,
        key=session.key,
        task=session.task,
        payload=build_payload(session.id, session.trigger_config, previous_run_id=previous_id),
        config=session.trigger_config,
        reason=reason,
        version=session.current_run_version + 1,
        created_at=now,
        previous_run_id=previous_id,
        start=Progress() if previous is None else previous.end or previous.start,
    )
