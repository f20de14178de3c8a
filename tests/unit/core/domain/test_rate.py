"""Token buckets: exact against counting permits, bounded in what is remembered, and right when the clock jumps."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.ids import EnvironmentId
from sessions_core.domain.rate import SECOND, Bucket, Buckets, Rate
from sessions_core.errors import InvalidError

ENVIRONMENT = EnvironmentId("env_a")
NOW = 800_000_000 * SECOND
rates = st.builds(Rate, st.sampled_from([0.5, 1, 3, 7, 1000, 333_333]), st.integers(1, 6))
steps = st.lists(st.integers(0, 3 * SECOND) | st.integers(0, 2000), max_size=40)


def bucket(rate: Rate, name: str = "one") -> Bucket:
    return Bucket(ENVIRONMENT, name, rate)


@attrs.define
class Counted:
    """A bucket as one would count it by hand."""

    rate: Rate
    at: int
    permits: Fraction

    def take(self, now: int) -> bool:
        gained = Fraction(now - self.at, self.rate.interval)
        self.permits, self.at = min(Fraction(self.rate.burst), self.permits + gained), now
        if self.permits < 1:
            return False
        self.permits -= 1
        return True


@given(rates, steps)
def test_a_bucket_counts_as_one_would_by_hand(rate: Rate, waits: list[int]) -> None:
    buckets, expected, now = Buckets(10), Counted(rate, NOW, Fraction(rate.burst)), NOW
    for wait in waits:
        now += wait
        looked = buckets.look(bucket(rate), now)
        taken = buckets.take((bucket(rate),), now)
        assert taken.is_allowed == looked.is_allowed == expected.take(now)
        assert taken.remaining == int(expected.permits)
        missing = 1 - expected.permits % 1
        assert taken.wait == timedelta(microseconds=int(missing * rate.interval))


@given(rates, steps)
def test_in_no_time_are_there_more_than_its_burst_and_its_rate_allow(rate: Rate, waits: list[int]) -> None:
    buckets, now, allowed = Buckets(10), NOW, []
    for wait in waits:
        now += wait
        while buckets.take((bucket(rate),), now).is_allowed:
            allowed.append(now)
    for first, start in enumerate(allowed):
        for last, end in enumerate(allowed[first:], first):
            assert last - first + 1 <= rate.burst + (end - start) * rate.per_second / SECOND + 1e-9


def test_what_is_full_is_forgotten_when_others_come() -> None:
    buckets, rate = Buckets(1000), Rate(10, 1)
    for number in range(500):
        buckets.take((bucket(rate, f"{number}"),), NOW + number * SECOND)
    assert len(buckets) <= 2


def test_no_more_are_remembered_than_the_limit_and_the_latest_are() -> None:
    buckets, rate = Buckets(10), Rate(0.001, 1)
    for number in range(100):
        buckets.take((bucket(rate, f"{number}"),), NOW)
    assert len(buckets) == 10
    assert not buckets.take((bucket(rate, "99"),), NOW).is_allowed


def test_one_that_is_used_stays_while_others_come_and_go() -> None:
    buckets, rate = Buckets(10), Rate(0.001, 1000)
    for number in range(100):
        buckets.take((bucket(rate, "busy"),), NOW)
        buckets.take((bucket(rate, f"{number}"),), NOW)
    assert buckets.look(bucket(rate, "busy"), NOW).remaining == 900


def test_a_clock_that_is_put_back_empties_a_bucket_at_worst() -> None:
    buckets, rate = Buckets(10), Rate(10, 5)
    buckets.take((bucket(rate),), NOW)
    past = NOW - 3600 * SECOND
    refused = buckets.take((bucket(rate),), past)
    assert (refused.is_allowed, refused.wait) == (False, timedelta(milliseconds=100))
    assert buckets.take((bucket(rate),), past + SECOND // 10).is_allowed


@pytest.mark.parametrize(
    ("text", "per_second", "burst"),
    [("5:7", 5, 7), ("5", 5, 50), ("0.5", 0.5, 5), ("0.001", 0.001, 1), ("1000000:1000000", 1e6, 10**6)],
)
def test_a_rate_is_read(text: str, per_second: float, burst: int) -> None:
    assert Rate.parse(text) == Rate(per_second, burst)
    assert Rate.parse(str(Rate.parse(text))) == Rate.parse(text)


@pytest.mark.parametrize("text", ["", "x", "5:x", "nan", ":5"])
def test_what_is_no_rate_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Rate.parse(text)


@pytest.mark.parametrize("text", ["0", "-1", "inf", "inf:5", "nan:5", "1e9", "0.0009", "5:0", "5:-1", "5:1000001"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        Rate.parse(text)


def test_a_rate_that_does_not_fit_whole_microseconds_is_rounded_down() -> None:
    assert Rate(3, 1).interval == 333_334
