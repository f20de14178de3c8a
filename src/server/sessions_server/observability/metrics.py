"""Prometheus metrics: of requests, and of what the core tells its observer. No label names an environment or a session.

Everything is counted in plain numbers that are put into Prometheus' form only when somebody looks: its own counters take
a lock each, which an append would feel.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

import attrs
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sessions_core.domain import events
from sessions_core.domain.channel import Io
from sessions_core.domain.events import Event
from sessions_core.ports.observer import Observer
from sessions_server.connections.places import Places
from sessions_server.observability.replication_metrics import ReplicationFacts

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@attrs.define(eq=False)
class _Times:
    """How long the answers of one route took."""

    total: float = 0.0
    buckets: list[int] = attrs.field(factory=lambda: [0] * (len(BUCKETS) + 1))


@attrs.define(eq=False)
class _Requests(Collector):
    """Answered requests by route and status."""

    counts: dict[tuple[str, int], int] = attrs.field(factory=dict)
    times: dict[str, _Times] = attrs.field(factory=dict)

    def add(self, route: str, status: int, seconds: float | None) -> None:
        key = (route, status)
        self.counts[key] = self.counts.get(key, 0) + 1
        if seconds is not None:
            times = self.times.get(route) or self.times.setdefault(route, _Times())
            times.total += seconds
            times.buckets[bisect_left(BUCKETS, seconds)] += 1

    def collect(self) -> Iterator[Metric]:
        counter = CounterMetricFamily("sessions_http_requests", "Requests answered.", labels=("route", "status"))
        for (route, status), count in self.counts.items():
            counter.add_metric((route, str(status)), count)
        yield counter
        text = "Time to answer, without subscriptions."
        histogram = HistogramMetricFamily("sessions_http_seconds", text, labels=("route",))
        bounds = [*map(str, BUCKETS), "+Inf"]
        for route, times in self.times.items():
            buckets = list(zip(bounds, accumulate(times.buckets), strict=True))
            histogram.add_metric((route,), buckets, times.total)
        yield histogram


@attrs.define(eq=False)
class _Facts(Collector):
    """What the core told."""

    events: dict[str, int] = attrs.field(factory=dict)
    ended: dict[str, int] = attrs.field(factory=dict)
    stored: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(Io, 0))
    again: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(Io, 0))

    def add(self, event: Event) -> None:
        name = type(event).__name__
        self.events[name] = self.events.get(name, 0) + 1
        if isinstance(event, events.RecordsAppended):
            io = event.channel.io
            self.stored[io] += event.count - event.duplicates
            self.again[io] += event.duplicates
        elif isinstance(event, events.RunEnded):
            status = event.status.value
            self.ended[status] = self.ended.get(status, 0) + 1

    def collect(self) -> Iterator[Metric]:
        yield _counter("sessions_events", "Facts the core told.", "event", self.events)
        yield _counter("sessions_runs_ended", "Runs ended.", "status", self.ended)
        yield _counter("sessions_records_appended", "Records stored.", "io", self.stored)
        yield _counter("sessions_records_duplicate", "Records that were there already.", "io", self.again)


@attrs.define(eq=False)
class _Limits(Collector):
    """What limits have done."""

    refused: dict[str, int] = attrs.field(factory=dict)
    uncounted: int = 0
    places: Places = attrs.field(factory=Places)

    def collect(self) -> Iterator[Metric]:
        yield _counter("sessions_requests_refused", "Requests answered with 429.", "limit", self.refused)
        text = "Requests let through because the rate limiter gave no answer."
        yield CounterMetricFamily("sessions_requests_uncounted", text, value=self.uncounted)
        text = "Connections without a request that were closed to make place for new ones."
        yield CounterMetricFamily("sessions_connections_made_place", text, value=self.places.made)
        text = "New connections for which nobody could make place."
        yield CounterMetricFamily("sessions_connections_refused", text, value=self.places.refused)


def _counter(name: str, text: str, label: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=(label,))
    for value, count in counts.items():
        family.add_metric((str(value),), count)
    return family


class Metrics(Observer):
    """Counts, for one process. Give it to the core as its observer and to the server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests, self._facts, self._replication = _Requests(), _Facts(), ReplicationFacts()
        registry.register(self._requests)
        registry.register(self._facts)
        registry.register(self._replication)
        self._limits = _Limits()
        registry.register(self._limits)
        self._streams = Gauge("sessions_subscriptions", "Open subscriptions.", registry=registry)
        self._connections = Gauge("sessions_connections", "Open connections.", registry=registry)
        text = "Open connections without a request under way."
        self._idle = Gauge("sessions_connections_idle", text, registry=registry)
        text = "Bytes held of bodies of unfinished requests."
        self._unfinished = Gauge("sessions_unfinished_bytes", text, registry=registry)

    def watch_streams(self, count: Callable[[], int]) -> None:
        """Ask *count* for the number of open subscriptions whenever metrics are read."""
        self._streams.set_function(count)

    def watch_unfinished(self, count: Callable[[], int]) -> None:
        """Ask *count* for the number of bytes held of bodies of unfinished requests whenever metrics are read."""
        self._unfinished.set_function(count)

    def watch_connections(self, count: Callable[[], int], places: Places) -> None:
        """Ask *count* for the number of open connections, and *places* who had to go, whenever metrics are read."""
        self._connections.set_function(count)
        self._idle.set_function(lambda: places.waiting)
        self._limits.places = places

    def request(self, route: str, status: int, seconds: float | None) -> None:
        """Count an answered request; *seconds* is None for a subscription."""
        self._requests.add(route, status, seconds)

    def refuse(self, limit: str) -> None:
        """Count a request that was one too many for *limit*, a kind and nobody's name."""
        self._limits.refused[limit] = self._limits.refused.get(limit, 0) + 1

    def let_through(self) -> None:
        """Count a request that no limiter has counted."""
        self._limits.uncounted += 1

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        self._facts.add(event)
        self._replication.add(event)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
