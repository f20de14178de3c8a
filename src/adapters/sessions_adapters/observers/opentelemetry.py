"""Spans for OpenTelemetry, made of facts.

How this works
--------------
The core tells what has happened, and how long it took; it opens no spans and knows nothing of tracing. So spans are made
afterwards, with the times of what is told. They have no parents: what belongs together has the same ``batch_id``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import attrs

from sessions_core.domain.events import Event, FlushAttemptFailed, RowsFlushed, SweepDone
from sessions_core.errors import MissingExtraError
from sessions_core.ports.observer import Observer

try:
    from opentelemetry.context import Context
    from opentelemetry.trace import Status, StatusCode, TracerProvider, get_tracer_provider
except ImportError as exc:
    raise MissingExtraError("Tracing", "opentelemetry-api", "otel") from exc

REPLICATION: Final = "sessions-replication-service"
SWEEP: Final = "sessions-sweep"
Attributes = dict[str, str | int | float]


@attrs.define
class OpenTelemetryObserver(Observer):
    """Makes a span of each batch that replication has written, of each write that failed, and of each pass of the sweep.

    They go to the provider that is given, or to the one that the process has set by then.
    """

    _provider: TracerProvider | None = None
    _now: Callable[[], int] = time.time_ns

    def __call__(self, event: Event) -> None:
        match event:
            case RowsFlushed():
                self._end(REPLICATION, "flushNextBatch", event.took, _of_batch(event))
            case FlushAttemptFailed():
                self._end(REPLICATION, "flushBatch", event.took, _of_attempt(event), event.error)
            case SweepDone():
                self._end(SWEEP, "sweep", event.took, {"step": event.step, "repaired": event.repaired})
            case _:
                pass

    def _end(self, tracer: str, name: str, took: timedelta, attributes: Attributes, error: str | None = None) -> None:
        """Make a span that ends now."""
        now = self._now()
        provider = self._provider or get_tracer_provider()
        span = provider.get_tracer(tracer).start_span(
            name,
            context=Context(),  # whoever happens to be active has nothing to do with it
            attributes=attributes,
            start_time=now - took // timedelta(microseconds=1) * 1000,
        )
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(now)


def _of_batch(event: RowsFlushed) -> Attributes:
    return {
        "batch_id": event.batch,
        "batch_size": event.rows + event.letters,
        "session_inserts": event.rows,
        "dead_letters": event.letters,
        "attempts": event.attempts,
        "lag_ms": event.lag / timedelta(milliseconds=1),
    }


def _of_attempt(event: FlushAttemptFailed) -> Attributes:
    return {
        "batch_id": event.batch,
        "batch_size": event.rows,
        "attempt": event.attempt,
        "pause_ms": event.pause / timedelta(milliseconds=1),
    }
