"""Frozen facts told to observers, named in the past tense. They hold no record bodies and no secrets.

``exception`` is the one a task raised, for its traceback. What it says is the task's own words, so it belongs in a log
that only the operator reads.
"""

from __future__ import annotations

from datetime import timedelta

import attrs

from sessions_core.domain.channel import Channel
from sessions_core.domain.ids import EnvironmentId, RunId, SessionId, WaitpointId
from sessions_core.domain.status import RunStatus


@attrs.frozen(kw_only=True)
class Event:
    """Base of all facts."""


@attrs.frozen(kw_only=True)
class SessionCreated(Event):
    """A create succeeded; ``is_cached`` tells that the session was there before."""

    environment_id: EnvironmentId
    session_id: SessionId
    is_cached: bool


@attrs.frozen(kw_only=True)
class SessionClosed(Event):
    """A session was closed for good."""

    environment_id: EnvironmentId
    session_id: SessionId


@attrs.frozen(kw_only=True)
class RunClaimed(Event):
    """A new run became a session's current one."""

    environment_id: EnvironmentId
    session_id: SessionId
    run_id: RunId
    reason: str


@attrs.frozen(kw_only=True)
class ClaimLost(Event):
    """Someone else was faster with a claim."""

    environment_id: EnvironmentId
    session_id: SessionId


@attrs.frozen(kw_only=True)
class RunBegun(Event):
    """An attempt began and took its epoch."""

    run_id: RunId
    attempt: int
    epoch: int


@attrs.frozen(kw_only=True)
class RunEnded(Event):
    """A run's record got a final status."""

    run_id: RunId
    status: RunStatus
    error: str | None = None
    exception: BaseException | None = attrs.field(default=None, repr=False, eq=False)


@attrs.frozen(kw_only=True)
class TurnFailed(Event):
    """A task raised inside a turn; the turn was completed with an error chunk."""

    run_id: RunId
    error: str
    exception: BaseException | None = attrs.field(default=None, repr=False, eq=False)


@attrs.frozen(kw_only=True)
class TurnStopped(Event):
    """The user stopped a turn; it was completed by the record *seq* of ``out``."""

    session_id: SessionId
    run_id: RunId
    seq: int


@attrs.frozen(kw_only=True)
class RunRecovered(Event):
    """A dead or failed run left input unanswered; a continuation was claimed."""

    run_id: RunId
    continuation: RunId
    failures: int


@attrs.frozen(kw_only=True)
class InputGivenUp(Event):
    """All attempts at one input failed; it was answered with an error."""

    session_id: SessionId
    cursor: int


@attrs.frozen(kw_only=True)
class RecordsAppended(Event):
    """An append returned; duplicates were not stored again."""

    channel: Channel
    count: int
    duplicates: int


@attrs.frozen(kw_only=True)
class WaitpointCompleted(Event):
    """A wait ended."""

    waitpoint_id: WaitpointId
    timed_out: bool


@attrs.frozen(kw_only=True)
class SystemFailed(Event):
    """A background step failed and will be tried again."""

    step: str
    error: str


@attrs.frozen(kw_only=True)
class SweepDone(Event):
    """A pass of the sweep ended."""

    took: timedelta
    repaired: int
