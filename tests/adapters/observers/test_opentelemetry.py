"""Facts become spans with the times of what they tell."""

from __future__ import annotations

import importlib
import sys
from datetime import timedelta
from typing import Any

import attrs
import pytest
from opentelemetry.trace import NonRecordingSpan, Span, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.span import INVALID_SPAN_CONTEXT

from sessions_adapters.observers.opentelemetry import OpenTelemetryObserver
from sessions_core.domain.events import ChangesRead, FlushAttemptFailed, RowsFlushed, SweepDone
from sessions_core.errors import MissingExtraError

NOW = 1_800_000_000_000_000_000
MILLISECOND = 1_000_000


class KeptSpan(NonRecordingSpan):
    def __init__(self, tracer: str, name: str, options: dict[str, Any]) -> None:
        super().__init__(INVALID_SPAN_CONTEXT)
        self.tracer, self.name, self.options = tracer, name, options
        self.end_time: int | None = None
        self.status: Any = None

    def set_status(self, status: Any, description: str | None = None) -> None:
        self.status = status

    def end(self, end_time: int | None = None) -> None:
        self.end_time = end_time


@attrs.define
class KeepingTracer(Tracer):
    name: str
    spans: list[KeptSpan]

    def start_span(self, name: str, *arguments: Any, **options: Any) -> Span:
        self.spans.append(KeptSpan(self.name, name, options))
        return self.spans[-1]

    def start_as_current_span(self, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError


@attrs.define
class KeepingProvider(TracerProvider):
    spans: list[KeptSpan] = attrs.field(factory=list)

    def get_tracer(self, instrumenting_module_name: str, *arguments: Any, **options: Any) -> Tracer:
        return KeepingTracer(instrumenting_module_name, self.spans)


def observe(*events: Any) -> list[KeptSpan]:
    provider = KeepingProvider()
    observer = OpenTelemetryObserver(provider, lambda: NOW)
    for event in events:
        observer(event)
    return provider.spans


def test_a_batch_that_is_written_becomes_a_span() -> None:
    took = timedelta(milliseconds=30)
    [span] = observe(RowsFlushed(batch=3, rows=10, letters=2, attempts=4, took=took, lag=timedelta(seconds=1.5)))
    assert (span.tracer, span.name) == ("sessions-replication-service", "flushNextBatch")
    assert (span.options["start_time"], span.end_time) == (NOW - 30 * MILLISECOND, NOW)
    assert span.options["attributes"] == {
        "batch_id": 3,
        "batch_size": 12,
        "session_inserts": 10,
        "dead_letters": 2,
        "attempts": 4,
        "lag_ms": 1500,
    }
    assert span.status is None


def test_a_write_that_failed_becomes_a_span_with_an_error() -> None:
    [span] = observe(
        FlushAttemptFailed(
            batch=3,
            rows=10,
            attempt=2,
            took=timedelta(seconds=10),
            pause=timedelta(seconds=2),
            error="The session index is unavailable; try again",
            is_failed=False,
        )
    )
    assert span.name == "flushBatch"
    assert span.options["attributes"] == {"batch_id": 3, "batch_size": 10, "attempt": 2, "pause_ms": 2000}
    assert (span.status.status_code, span.status.description) == (
        StatusCode.ERROR,
        "The session index is unavailable; try again",
    )


def test_a_step_of_the_sweep_becomes_a_span() -> None:
    [span] = observe(SweepDone(step="settle", took=timedelta(microseconds=5), repaired=1))
    assert (span.tracer, span.name) == ("sessions-sweep", "sweep")
    assert span.options["attributes"] == {"step": "settle", "repaired": 1}
    assert span.options["start_time"] == NOW - 5000


def test_other_facts_make_no_spans() -> None:
    assert observe(ChangesRead(kinds={"insert": 1}, unreadable=0, lag=timedelta())) == []


def test_without_a_provider_nothing_fails() -> None:
    OpenTelemetryObserver()(SweepDone(step="bury", took=timedelta(seconds=1), repaired=1))


def test_without_its_package_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    monkeypatch.delitem(sys.modules, OpenTelemetryObserver.__module__)
    with pytest.raises(MissingExtraError, match=r"sessions\[otel\]"):
        importlib.import_module(OpenTelemetryObserver.__module__)
