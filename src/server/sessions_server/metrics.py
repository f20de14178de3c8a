"""Prometheus metrics: of requests, and of what the core tells its observer. No label names an environment or a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sessions_core.domain import events
from sessions_core.domain.events import Event
from sessions_core.ports.observer import Observer

_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics(Observer):
    """Counts, for one process. Give it to the core as its observer and to the server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter("sessions_http_requests", "Requests answered.", ("route", "status"), registry=registry)
        self._seconds = Histogram(
            "sessions_http_seconds",
            "Time to answer, without subscriptions.",
            ("route",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._streams = Gauge("sessions_subscriptions", "Open subscriptions.", registry=registry)
        self._events = Counter("sessions_events", "Facts the core told.", ("event",), registry=registry)
        self._records = Counter("sessions_records_appended", "Records stored.", ("io",), registry=registry)
        self._duplicates = Counter(
            "sessions_records_duplicate", "Records that were there already.", ("io",), registry=registry
        )
        self._runs_ended = Counter("sessions_runs_ended", "Runs ended.", ("status",), registry=registry)
        self._children: dict[tuple[str, int], tuple[Any, Any]] = {}
        self._event_counts: dict[type[Event], Any] = {}

    def watch_streams(self, count: Callable[[], int]) -> None:
        """Ask *count* for the number of open subscriptions whenever metrics are read."""
        self._streams.set_function(count)

    def request(self, route: str, status: int, seconds: float | None) -> None:
        """Count an answered request; *seconds* is None for a subscription."""
        children = self._children.get((route, status))
        if children is None:
            children = (self._requests.labels(route, status), self._seconds.labels(route))
            self._children[route, status] = children
        children[0].inc()
        if seconds is not None:
            children[1].observe(seconds)

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        kind = type(event)
        count = self._event_counts.get(kind)
        if count is None:
            count = self._event_counts[kind] = self._events.labels(kind.__name__)
        count.inc()
        if isinstance(event, events.RecordsAppended):
            self._records.labels(event.channel.io).inc(event.count - event.duplicates)
            if event.duplicates:
                self._duplicates.labels(event.channel.io).inc(event.duplicates)
        elif isinstance(event, events.RunEnded):
            self._runs_ended.labels(event.status.value).inc()

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
