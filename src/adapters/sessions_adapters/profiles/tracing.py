"""Spans, where OpenTelemetry is installed."""

from __future__ import annotations

from sessions_core.errors import MissingExtraError
from sessions_core.ports.observer import Observer


def find_tracers() -> tuple[Observer, ...]:
    """Return what makes spans of facts; nothing without the extra ``otel``.

    Spans go where the process has been told to send them, as with ``opentelemetry-instrument``; otherwise nowhere.
    """
    try:
        from sessions_adapters.observers.opentelemetry import OpenTelemetryObserver
    except MissingExtraError:
        return ()
    return (OpenTelemetryObserver(),)
