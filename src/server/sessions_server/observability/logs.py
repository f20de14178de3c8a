"""Logging: plain or JSON lines, the access log, and the core's events. No credentials, no bodies, no query strings."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import attrs
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.web import RequestPayloadError

from sessions_core.domain.events import (
    BackfillAdvanced,
    ChangeDeadLettered,
    ChangesRead,
    Event,
    FeedMeasured,
    FlushAttemptFailed,
    InputGivenUp,
    LeadershipChanged,
    PositionAcknowledged,
    RecordsAppended,
    ReplicationStreamClosed,
    ReplicationStreamOpened,
    RetentionExceeded,
    RowsFlushed,
    RunEnded,
    RunRecovered,
    SystemFailed,
    TurnFailed,
)
from sessions_core.domain.status import FAILED
from sessions_core.ports.observer import Observer
from sessions_server.observability.redaction import redact

logger: Final = logging.getLogger("sessions.server")
access_logger: Final = logging.getLogger("sessions.access")
event_logger: Final = logging.getLogger("sessions.events")
replication_logger: Final = logging.getLogger("sessions.events.replication")
for _logger in (logger, access_logger, event_logger):
    _logger.addHandler(logging.NullHandler())

_WARNINGS: Final = (
    *(InputGivenUp, RunRecovered, SystemFailed, TurnFailed),
    *(ChangeDeadLettered, FlushAttemptFailed, RetentionExceeded),
)
_INFORMATION: Final = (LeadershipChanged, ReplicationStreamOpened, ReplicationStreamClosed)
_REPLICATION: Final = (
    *(*_INFORMATION, ChangeDeadLettered, FlushAttemptFailed, RetentionExceeded, BackfillAdvanced),
    *(ChangesRead, FeedMeasured, PositionAcknowledged, RowsFlushed),
)
CLIENT_LEFT: Final = 499
"""Status, in the log and in metrics, of a request whose client did not wait for the answer."""
_TELLTALE: Final = "hpack"
"""Logs every header of every request over HTTP/2 at the level DEBUG."""
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class PlainFormatter(logging.Formatter):
    """One line for a person: time, level, message, then ``name=value`` of what belongs to it."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value!a}" for name, value in _extra(record).items())
        line = f"{_time(record)} {record.levelname:<7} {record.name}: {record.getMessage()}{fields}"
        return redact(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


class JsonFormatter(logging.Formatter):
    """One JSON object per line, for machines."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line.update(_extra(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str))


class _NoNonsense(logging.Filter):
    """Keeps a client that speaks no HTTP from filling the log with stacks."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], BadHttpMessage | RequestPayloadError))


def set_up_logging(level: str, *, as_json: bool) -> None:
    """Send all logging of this process to standard error, from *level* on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter())
    handler.addFilter(_NoNonsense())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger(_TELLTALE).setLevel(logging.INFO)


class EventLog(Observer):
    """Logs the core's facts.

    Tasks' failures are errors with a traceback, other trouble is a warning, the end of a run that was replaced or whose
    session was closed under it is information, and the rest is for debugging.
    """

    __slots__ = ()

    def __call__(self, event: Event) -> None:
        """Log *event*."""
        if type(event) is RecordsAppended and not event_logger.isEnabledFor(logging.DEBUG):
            return  # by far the most frequent, and on the way of every append
        exception = event.exception if isinstance(event, RunEnded | TurnFailed) else None
        level = logging.ERROR if exception is not None else _level_of(event)
        log = replication_logger if isinstance(event, _REPLICATION) else event_logger
        if log.isEnabledFor(level):
            facts = attrs.asdict(
                event,
                filter=lambda field, _: field.name != "exception",
                value_serializer=lambda _, __, value: value.value if isinstance(value, Enum) else value,
            )
            log.log(level, type(event).__name__, exc_info=exception, extra={"event": facts})


def _level_of(event: Event) -> int:
    if isinstance(event, RunEnded) and event.error is not None:
        return logging.WARNING if event.status in FAILED else logging.INFO
    if isinstance(event, ReplicationStreamClosed) and event.error is not None:
        return logging.ERROR if event.is_lasting else logging.WARNING
    if isinstance(event, _INFORMATION):
        return logging.INFO
    return logging.WARNING if isinstance(event, _WARNINGS) else logging.DEBUG


@attrs.frozen
class Observers(Observer):
    """Tells several observers."""

    members: tuple[Observer, ...]

    def __call__(self, event: Event) -> None:
        """Hand *event* on."""
        for member in self.members:
            member(event)


def log_request(request_id: str, method: str, path: str, status: int, seconds: float) -> None:
    """Write a line of the access log. *path* comes without its query string."""
    access_logger.info(
        "request",
        extra={
            "request_id": request_id,
            "method": method,
            "path": path,
            "status": status,
            "milliseconds": round(seconds * 1000, 2),
        },
    )
