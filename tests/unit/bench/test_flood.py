"""What is found beside a flood, and that each bad request is one."""

from __future__ import annotations

import pytest

from benchmarks.bad_requests import kinds
from benchmarks.broadcast import Delivered
from benchmarks.flood import CALM, FLOODED, Flood, Weathered
from benchmarks.flooding import Flooded
from benchmarks.samples import Samples


def weathered(milliseconds: float, rss: float, problems: list[str] | None = None) -> Weathered:
    samples = Samples(latencies=[milliseconds / 1000] * 100, seconds=1.0, sent=[100], busy=0.1)
    delivered = Delivered(samples=samples, cpu=0.1, records=100, problems=problems or [], gone_seconds=None)
    return Weathered(delivered=delivered, rss=rss)


def found(answers: dict[tuple[str, str], int], problems: list[str] | None = None) -> Flood:
    rounds = {
        CALM: [weathered(2.0, 50), weathered(4.0, 60)],
        FLOODED: [weathered(3.0, 60), weathered(10.0, 60, problems)],
    }
    return Flood(rounds, [Flooded(answers=answers, seconds=2.0)] * 2)


def test_good_traffic_is_compared_with_itself_round_by_round() -> None:
    p99, rss = found({("bad key", "401"): 300, ("deep JSON", "400"): 100}).figures
    assert p99.values == pytest.approx([1.5, 2.5])
    assert rss.values == pytest.approx([1.2, 1.0])
    assert p99.is_met


def test_the_flood_is_shown_with_its_pace_and_how_it_was_refused() -> None:
    calm, flooded = found({("bad key", "401"): 300, ("deep JSON", "400"): 100}).rows
    assert calm[-2:] == ("-", "-")
    assert flooded[-2:] == ("200", "400 401")


def test_a_failure_that_a_bad_request_has_caused_and_a_lost_record_are_problems() -> None:
    assert not found({("bad key", "401"): 3}).checked.problems
    assert found({("bomb", "500"): 3}).checked.problems == ["flood: 6 times bomb was answered as a failure"]
    assert found({("bad key", "401"): 3}, ["seq 3 is missing"]).checked.problems == ["flood: seq 3 is missing"]


def test_every_kind_is_another_request() -> None:
    requests = kinds("token.token.token")
    assert len(set(requests.values())) == len(requests) > 10
