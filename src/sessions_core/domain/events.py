"""Frozen facts told to observers, named in the past tense. They hold no record bodies and no secrets.

``exception`` is the one a task raised, for its traceback. What it says is the task's own words, so it belongs in a log
that only the operator reads.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    """A step of the sweep has repaired something."""

    step: str
    took: timedelta
    repaired: int


@attrs.frozen(kw_only=True)
class LeadershipChanged(Event):
    """This process became the one that replicates, or it did not, or is it no longer.

    Told when leadership is taken, lost or given back, and by who waits for it longer than usual.
    """

    name: str
    is_leader: bool


@attrs.frozen(kw_only=True)
class ReplicationStreamOpened(Event):
    """Changes are streamed from the store."""


@attrs.frozen(kw_only=True)
class ReplicationStreamClosed(Event):
    """No changes are streamed any more.

    Attributes:
        error: Why, in one sentence; None if that was asked for.
        pause: After how long it is tried again; None if it is not, or as soon as all that was read is written.
        is_lasting: Somebody has to do something: at the cap of the pauses, or where the store says what is wrong with it.
    """

    error: str | None
    pause: timedelta | None
    is_lasting: bool = False


@attrs.frozen(kw_only=True)
class ChangesRead(Event):
    """Changes of one transaction were read from the store, by their kind (``insert``, ``update``, ``delete``).

    Attributes:
        unreadable: How many of them could not be understood; they are counted in *kinds*, too.
        lag: How long ago the transaction was committed.
    """

    kinds: Mapping[str, int]
    unreadable: int
    lag: timedelta


@attrs.frozen(kw_only=True)
class RowsFlushed(Event):
    """A batch of rows is in the index, or, where it does not take them, among the dead letters.

    Attributes:
        batch: Counts the batches of whoever writes, from 1 on.
        rows: Rows in the index.
        letters: Dead letters, unreadable changes included.
        attempts: How often anything was written for it; 1 if all went well.
        took: From the first attempt on.
        lag: Age of the oldest change in it.
    """

    batch: int
    rows: int
    letters: int
    attempts: int
    took: timedelta
    lag: timedelta


@attrs.frozen(kw_only=True)
class FlushAttemptFailed(Event):
    """A write of rows, or of dead letters, got no answer; it is tried again after *pause*.

    Attributes:
        batch: As in :class:`RowsFlushed`.
        attempt: How many have failed in a row.
        is_failed: The batch counts as failed: told once for so many attempts as are configured.
    """

    batch: int
    rows: int
    attempt: int
    took: timedelta
    pause: timedelta
    error: str
    is_failed: bool


@attrs.frozen(kw_only=True)
class ChangeDeadLettered(Event):
    """The index will never have this change; it is kept among the dead letters, which say why."""

    session_id: str | None
    version: int
    kind: str


@attrs.frozen(kw_only=True)
class PositionAcknowledged(Event):
    """Everything up to this position of the store's log is in the index."""

    position: int


@attrs.frozen(kw_only=True)
class BackfillAdvanced(Event):
    """So many sessions of about *total* have been read and are in the index, or among the dead letters."""

    done: int
    total: int


@attrs.frozen(kw_only=True)
class FeedMeasured(Event):
    """The store was asked how far the change feed is behind.

    Attributes:
        lag_bytes: Of the store's log, not acknowledged yet.
        retained_bytes: Of the store's log, kept because of that.
        dead_letters: How many are kept.
    """

    lag_bytes: int
    retained_bytes: int
    dead_letters: int


@attrs.frozen(kw_only=True)
class RetentionExceeded(Event):
    """The store keeps more of its log for the change feed than it should: its disk may fill. Somebody has to replicate."""

    retained_bytes: int
    limit_bytes: int
