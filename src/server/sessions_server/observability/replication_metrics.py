"""Prometheus metrics of replication, under the contract's names with ``_`` for ``.``; nothing where nothing replicates."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import accumulate
from typing import Final

import attrs
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sessions_core.domain import events
from sessions_core.domain.events import Event

PREFIX: Final = "sessions_replication_"
MILLISECONDS: Final = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000)
SECONDS: Final = tuple(bound / 1000 for bound in MILLISECONDS)
SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
OPERATION: Final = "sessions"


@attrs.define(eq=False)
class _Histogram:
    """How often which size of something was seen."""

    name: str
    text: str
    bounds: tuple[float, ...]
    total: float = 0.0
    counts: list[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.total += value
        self.counts[bisect_left(self.bounds, value)] += 1

    def family(self) -> Metric:
        bounds = [*map(str, self.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(self.counts), strict=True))
        return HistogramMetricFamily(PREFIX + self.name, self.text, buckets=buckets, sum_value=self.total)


def _ms(duration: timedelta) -> float:
    return duration.total_seconds() * 1000


@attrs.define(eq=False)
class ReplicationFacts(Collector):
    """What replication told."""

    _is_used: bool = attrs.field(init=False, default=False)
    _lag: _Histogram = attrs.field(
        init=False,
        factory=lambda: _Histogram("replication_lag_ms", "From a commit until it was read.", MILLISECONDS),
    )
    _flush_lag: _Histogram = attrs.field(
        init=False,
        factory=lambda: _Histogram(
            "flush_lag_seconds", "From the oldest commit of a batch until it was in the index.", SECONDS
        ),
    )
    _size: _Histogram = attrs.field(
        init=False, factory=lambda: _Histogram("batch_size", "Rows and dead letters of a batch.", SIZES)
    )
    _took: _Histogram = attrs.field(
        init=False, factory=lambda: _Histogram("flush_duration_ms", "Time to write a batch.", MILLISECONDS)
    )
    _flushed: Counter[str] = attrs.field(init=False, factory=lambda: Counter(true=0, false=0))
    _processed: Counter[str] = attrs.field(init=False, factory=Counter)
    _inserted: int = attrs.field(init=False, default=0)
    _retries: int = attrs.field(init=False, default=0)
    _letters: int = attrs.field(init=False, default=0)
    _leads: int = attrs.field(init=False, default=0)
    _measured: events.FeedMeasured | None = attrs.field(init=False, default=None)

    def add(self, event: Event) -> None:
        """Count *event*, if it is about replication."""
        match event:
            case events.ChangesRead():
                self._lag.add(_ms(event.lag))
                self._processed.update(event.kinds)
            case events.RowsFlushed():
                self._flush(event)
            case events.FlushAttemptFailed():
                self._retries += 1
                self._flushed["false"] += event.is_failed
            case events.ChangeDeadLettered():
                self._letters += 1
            case events.LeadershipChanged():
                self._leads = int(event.is_leader)
            case events.FeedMeasured():
                self._measured = event
            case _:
                return
        self._is_used = True

    def _flush(self, event: events.RowsFlushed) -> None:
        self._flushed["true"] += 1
        self._inserted += event.rows
        self._size.add(event.rows + event.letters)
        self._took.add(_ms(event.took))
        self._flush_lag.add(event.lag.total_seconds())

    def collect(self) -> Iterator[Metric]:
        """Give everything, if there is anything."""
        if not self._is_used:
            return
        yield from (histogram.family() for histogram in (self._lag, self._flush_lag, self._size, self._took))
        yield _counter(
            "batches_flushed", "Batches written, and batches whose attempts failed.", "success", self._flushed
        )
        yield _counter("events_processed", "Changes read.", "event_type", self._processed)
        yield _counter("insert_retries", "Attempts that failed.", "operation", {OPERATION: self._retries})
        yield CounterMetricFamily(f"{PREFIX}sessions_inserted", "Rows written.", value=self._inserted)
        yield CounterMetricFamily(f"{PREFIX}dead_letters", "Changes that became dead letters.", value=self._letters)
        yield GaugeMetricFamily(f"{PREFIX}leader", "Whether this process leads.", value=self._leads)
        if self._measured is not None:
            yield from _gauges(self._measured)


def _gauges(measured: events.FeedMeasured) -> Iterator[Metric]:
    yield GaugeMetricFamily(f"{PREFIX}lag_bytes", "Log that is not acknowledged yet.", value=measured.lag_bytes)
    yield GaugeMetricFamily(
        f"{PREFIX}retained_wal_bytes", "Log that Postgres keeps for the slot.", value=measured.retained_bytes
    )
    yield GaugeMetricFamily(f"{PREFIX}dead_letters_kept", "Dead letters in the table.", value=measured.dead_letters)


def _counter(name: str, text: str, label: str, counts: dict[str, int] | Counter[str]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=(label,))
    for value, count in counts.items():
        family.add_metric((value,), count)
    return family
