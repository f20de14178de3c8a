"""What replication tells, as metrics under the contract's names."""

from __future__ import annotations

from datetime import timedelta

import pytest
from prometheus_client.registry import CollectorRegistry

from sessions_core.domain import events
from sessions_core.domain.events import Event
from sessions_server.observability.replication_metrics import ReplicationFacts

READ = events.ChangesRead(kinds={"insert": 3, "update": 1}, unreadable=1, lag=timedelta(milliseconds=20))
FLUSHED = events.RowsFlushed(
    batch=1, rows=3, letters=1, attempts=2, took=timedelta(milliseconds=40), lag=timedelta(seconds=2)
)


def failed(*, is_failed: bool) -> Event:
    pause = timedelta(seconds=1)
    return events.FlushAttemptFailed(
        batch=1, rows=3, attempt=1, took=timedelta(), pause=pause, error="away", is_failed=is_failed
    )


def values_after(*told: Event) -> dict[str, float]:
    """Return the samples without the prefix that all have, those of buckets left out."""
    facts, registry = ReplicationFacts(), CollectorRegistry()
    registry.register(facts)
    for event in told:
        facts.add(event)
    samples = [sample for metric in registry.collect() for sample in metric.samples if "le" not in sample.labels]
    return {_name(sample.name, sample.labels): sample.value for sample in samples}


def _name(name: str, labels: dict[str, str]) -> str:
    inner = ",".join(f"{label}={value}" for label, value in labels.items())
    return name.removeprefix("sessions_replication_") + (f"{{{inner}}}" if inner else "")


def test_there_are_none_where_nothing_replicates() -> None:
    assert values_after() == {}


def test_all_have_the_names_of_the_contract() -> None:
    assert values_after(READ).keys() >= {
        *("replication_lag_ms_count", "batch_size_count", "flush_duration_ms_count"),
        *("batches_flushed_total{success=true}", "batches_flushed_total{success=false}", "sessions_inserted_total"),
        *("insert_retries_total{operation=sessions}", "events_processed_total{event_type=insert}"),
    }


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            READ,
            {
                "replication_lag_ms_count": 1,
                "replication_lag_ms_sum": 20,
                "events_processed_total{event_type=insert}": 3,
                "events_processed_total{event_type=update}": 1,
            },
        ),
        (
            FLUSHED,
            {
                "batches_flushed_total{success=true}": 1,
                "sessions_inserted_total": 3,
                "batch_size_sum": 4,
                "flush_duration_ms_sum": 40,
                "flush_lag_seconds_sum": 2,
            },
        ),
        (
            failed(is_failed=False),
            {"insert_retries_total{operation=sessions}": 1, "batches_flushed_total{success=false}": 0},
        ),
        (
            failed(is_failed=True),
            {"insert_retries_total{operation=sessions}": 1, "batches_flushed_total{success=false}": 1},
        ),
        (events.ChangeDeadLettered(session_id="session_1", version=1, kind="insert"), {"dead_letters_total": 1}),
        (events.LeadershipChanged(name="x", is_leader=True), {"leader": 1}),
        (
            events.FeedMeasured(lag_bytes=7, retained_bytes=8, dead_letters=9),
            {"lag_bytes": 7, "retained_wal_bytes": 8, "dead_letters_kept": 9},
        ),
    ],
)
def test_what_is_told_is_counted(event: Event, expected: dict[str, float]) -> None:
    values = values_after(event)
    assert {name: values[name] for name in expected} == expected


def test_a_histogram_has_each_size_in_the_smallest_bucket_that_holds_it() -> None:
    facts, registry = ReplicationFacts(), CollectorRegistry()
    registry.register(facts)
    facts.add(READ)  # 20 ms
    buckets = {
        bound: registry.get_sample_value("sessions_replication_replication_lag_ms_bucket", {"le": bound})
        for bound in ("10", "25", "+Inf")
    }
    assert buckets == {"10": 0, "25": 1, "+Inf": 1}
