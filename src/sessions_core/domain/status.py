"""Statuses: derived for a session, recorded for a run."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final


class SessionStatus(StrEnum):
    """What a session is at one moment; never stored."""

    ACTIVE = "ACTIVE"
    CLOSED = "CLOSED"
    EXPIRED = "EXPIRED"


def derive_status(closed_at: datetime | None, expires_at: datetime | None, now: datetime) -> SessionStatus:
    """Tell a session's status at *now*. Closed wins over expired."""
    if closed_at is not None:
        return SessionStatus.CLOSED
    if expires_at is not None and expires_at <= now:
        return SessionStatus.EXPIRED
    return SessionStatus.ACTIVE


class RunStatus(StrEnum):
    """Status of a run, in the words of the Trigger.dev run API."""

    DELAYED = "DELAYED"
    PENDING = "PENDING"
    EXECUTING = "EXECUTING"
    RETRYING_AFTER_FAILURE = "RETRYING_AFTER_FAILURE"
    CANCELED = "CANCELED"
    COMPLETED_SUCCESSFULLY = "COMPLETED_SUCCESSFULLY"
    COMPLETED_WITH_ERRORS = "COMPLETED_WITH_ERRORS"
    CRASHED = "CRASHED"
    EXPIRED = "EXPIRED"
    TIMED_OUT = "TIMED_OUT"

    @property
    def is_alive(self) -> bool:
        """Tell whether a run of this status will still read its session's input."""
        return self in ALIVE


ALIVE: Final = frozenset({RunStatus.DELAYED, RunStatus.PENDING, RunStatus.EXECUTING, RunStatus.RETRYING_AFTER_FAILURE})
FAILED: Final = frozenset({RunStatus.CRASHED, RunStatus.COMPLETED_WITH_ERRORS, RunStatus.TIMED_OUT})
"""Ends that count towards ``maxAttempts``."""
WAITING_FOR_WORKER: Final = ALIVE - {RunStatus.EXECUTING}
"""Statuses in which a run waits for somebody to carry it out. (The next attempt of an ``EXECUTING`` run may begin, too:
it takes the run over from a worker that has died.)"""
