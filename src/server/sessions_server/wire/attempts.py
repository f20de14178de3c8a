"""Bodies of the routes for engines that carry out runs outside this server."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, UnsetType, field

from sessions_core.domain.status import RunStatus
from sessions_core.errors import InvalidError
from sessions_core.services.attempts import Begun, Outcome
from sessions_server.wire.schemas import shown, text, whole
from sessions_server.wire.values import MAX_NUMBER, Wire, check_text, or_none, parse_whole

MAX_ATTEMPT: Final = 1_000_000
MAX_ERROR: Final = 500
MAX_RECORDS: Final = 1_000

_SEQ: Final = whole(-1, MAX_NUMBER)

Ended = Literal["COMPLETED_SUCCESSFULLY", "COMPLETED_WITH_ERRORS", "CRASHED", "TIMED_OUT", "CANCELED"]


class StartAttempt(Wire, frozen=True, kw_only=True):
    """Body of ``POST …/attempts/start``."""

    attempt: Annotated[int | float, shown(whole(1, MAX_ATTEMPT))]

    @property
    def number(self) -> int:
        """The attempt to begin.

        Raises:
            InvalidError: It is none.
        """
        number = parse_whole(self.attempt, "attempt")
        if not 1 <= number <= MAX_ATTEMPT:
            raise InvalidError("attempt", f"must be 1 to {MAX_ATTEMPT}")
        return number


class AttemptItem(Wire, frozen=True, kw_only=True):
    """An attempt that has begun. ``lastSeqNum`` is the last ``in`` record that is dealt with, -1 if none is."""

    run_id: str
    session_id: str
    external_id: str | None
    task_identifier: str
    reason: str
    attempt: int
    epoch: int
    last_seq_num: int
    payload: dict[str, Any]
    previous_run_id: str | None
    max_duration: int | None
    stall_seconds: float
    token: str | None


class HeartbeatItem(Wire, frozen=True, kw_only=True):
    """The attempt still holds its run. ``token`` replaces the one before, if there is a new one."""

    token: str | None


class OutRecord(Wire, frozen=True, kw_only=True):
    """A data record: any JSON value."""

    data: Any


class TurnComplete(Wire, frozen=True, kw_only=True):
    """The end of a turn, which commits every ``in`` record up to ``lastSeqNum``."""

    last_seq_num: Annotated[int | float, shown(_SEQ)]

    @property
    def committed(self) -> int:
        """The last record that is committed.

        Raises:
            InvalidError: It is none.
        """
        return _seq(self.last_seq_num, "turnComplete.lastSeqNum")


class AppendOut(Wire, frozen=True, kw_only=True):
    """Body of ``POST …/out/append``."""

    records: Annotated[list[OutRecord], shown(maxItems=MAX_RECORDS - 1)] = field(default_factory=list)
    turn_complete: TurnComplete | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        if not self.records and or_none(self.turn_complete) is None:
            raise InvalidError("records", "must not be empty, unless turnComplete is there")
        if len(self.records) >= MAX_RECORDS:
            raise InvalidError("records", f"must have fewer than {MAX_RECORDS} items")


class CompleteAttempt(Wire, frozen=True, kw_only=True):
    """Body of ``POST …/attempts/complete``."""

    status: Ended
    last_seq_num: Annotated[int | float, shown(_SEQ)] | UnsetType | None = UNSET
    error: Annotated[str, shown(text(MAX_ERROR))] | UnsetType | None = UNSET

    def to_outcome(self) -> Outcome:
        """Return how the attempt ended.

        Raises:
            InvalidError: A value breaks a rule.
        """
        last, error = or_none(self.last_seq_num), or_none(self.error)
        return Outcome(
            status=RunStatus(self.status),
            last_seq=None if last is None else _seq(last, "lastSeqNum"),
            error=None if error is None else check_text(error, "error", MAX_ERROR, least=0),
        )


def _seq(number: float, name: str) -> int:
    seq = parse_whole(number, name)
    if seq < -1:
        raise InvalidError(name, "must be -1 or more")
    return seq


def attempt_item(begun: Begun, *, stall_seconds: float, token: str | None) -> AttemptItem:
    """Show an attempt that has begun."""
    run = begun.run
    return AttemptItem(
        run_id=run.id,
        session_id=run.session_id,
        external_id=begun.session.external_id,
        task_identifier=run.task,
        reason=run.reason,
        attempt=run.attempt,
        epoch=run.epoch,
        last_seq_num=begun.cursor,
        payload=dict(run.payload),
        previous_run_id=run.previous_run_id,
        max_duration=run.config.members.get("maxDuration"),
        stall_seconds=stall_seconds,
        token=token,
    )
