"""Waitpoints: a run's promise to wake on the next record of a channel, and the arithmetic of their timeouts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import attrs

from sessions_core.domain.channel import Channel
from sessions_core.domain.ids import RunId, WaitpointId

MAX_IDEMPOTENCY_KEY: Final = 2048
DEFAULT_REGISTRATION: Final = timedelta(days=7)
TIMEOUT_CODE: Final = "TRIGGER_WAITPOINT_TIMEOUT"

_UNITS: Final = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "hr": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}
_DURATION: Final = re.compile(r"(?:\d{1,9}(?:w|d|hr|h|m|s))+")
_PART: Final = re.compile(r"(\d{1,9})(w|d|hr|h|m|s)")
_LONGEST: Final = timedelta(days=36500)


class WaitpointStatus(StrEnum):
    """What has become of a waitpoint."""

    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    TIMED_OUT = "TIMED_OUT"


@attrs.frozen(kw_only=True)
class Waitpoint:
    """A durable wait of one run for the next record of one channel.

    Attributes:
        after_seq: Records up to this one are known to the waiter; -1 if it knows none.
        expires_at: When it times out; None waits without limit.
        output: Once completed, the record's ``data``; once timed out, a JSON error object.
        seq: Once completed by a record, that record's seq.
    """

    id: WaitpointId
    run_id: RunId
    channel: Channel
    created_at: datetime
    after_seq: int = -1
    expires_at: datetime | None = None
    idempotency_key: str | None = None
    idempotency_expires_at: datetime | None = None
    tags: tuple[str, ...] = ()
    status: WaitpointStatus = attrs.field(default=WaitpointStatus.WAITING, converter=WaitpointStatus)
    output: Any = None
    seq: int | None = None
    completed_at: datetime | None = None

    @property
    def is_waiting(self) -> bool:
        """Tell whether it is still pending."""
        return self.status is WaitpointStatus.WAITING


@attrs.frozen
class Completion:
    """What ends a waitpoint: a record's data and seq, or a timeout's error object without a seq."""

    status: WaitpointStatus
    output: Any
    seq: int | None = None


def timeout_of(waitpoint: Waitpoint) -> Completion:
    """Return how *waitpoint* ends when nothing came in time."""
    moment = waitpoint.expires_at.isoformat(timespec="milliseconds") if waitpoint.expires_at else "?"
    message = f"Waitpoint timed out at {moment.replace('+00:00', 'Z')}"
    return Completion(WaitpointStatus.TIMED_OUT, {"code": TIMEOUT_CODE, "message": message})


def parse_duration(text: str) -> timedelta | None:
    """Read a compound duration such as ``1h30m`` (units ``w d h hr m s``); None if it is not one."""
    compact = text.strip().replace(" ", "")
    if not _DURATION.fullmatch(compact):
        return None
    return min(sum((_times(number, unit) for number, unit in _PART.findall(compact)), timedelta()), _LONGEST)


def parse_timeout(text: str | None, now: datetime) -> datetime | None:
    """Read a wait's timeout: a date first, then a duration; a past date or an unreadable text means none."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        duration = parse_duration(text)
        return None if duration is None else now + duration
    try:
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        return None
    return moment if moment > now else None


def parse_idempotency_ttl(text: str | None, now: datetime) -> datetime | None:
    """Read ``<digits><s|m|h|d>``; anything else is ignored."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text or "")
    return now + _times(match[1], match[2]) if match else None


def _times(number: str, unit: str) -> timedelta:
    count, one = int(number), _UNITS[unit]
    return _LONGEST if count > _LONGEST // one else count * one
