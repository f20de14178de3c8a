"""Pauses double up to a cap."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from sessions_core.services.replication.backoff import Backoff, doubled

SECOND = timedelta(seconds=1)


def test_pauses_double_up_to_the_cap() -> None:
    backoff = Backoff(base=SECOND, cap=30 * SECOND)
    assert [backoff.pause(failures) / SECOND for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert [backoff.is_at_cap(failures) for failures in (1, 5, 6, 10_000)] == [False, False, True, True]


def test_chance_adds_up_to_the_jitter() -> None:
    backoff = Backoff(base=SECOND, cap=2 * SECOND, jitter=SECOND)
    assert [backoff.pause(9, chance) / SECOND for chance in (0.0, 0.5, 1.0)] == [2, 2.5, 3]


@given(st.integers(1, 10**9), st.floats(0, 1))
def test_a_pause_is_never_longer_than_cap_and_jitter(failures: int, chance: float) -> None:
    backoff = Backoff(base=SECOND, cap=30 * SECOND, jitter=SECOND)
    assert SECOND <= backoff.pause(failures, chance) <= 31 * SECOND


def test_nothing_is_doubled_beyond_reason() -> None:
    assert doubled(SECOND, 0) == SECOND
    assert doubled(SECOND, 10**9) < timedelta(days=365 * 100)
