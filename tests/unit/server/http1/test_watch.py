"""When a client of HTTP/1.1 has been too slow, and a connection is old enough."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sessions_server.connections.settings import ConnectionSettings
from sessions_server.http1.limits import Http1Limits
from sessions_server.http1.watch import Step, Watch

SETTINGS = ConnectionSettings(
    header_timeout=timedelta(seconds=10), slow_write=timedelta(seconds=30), connection_age=timedelta(seconds=1000)
)
START = 5000.0


@pytest.fixture
def watch() -> Watch:
    return Watch(Http1Limits.of(SETTINGS), START)


def look(watch: Watch, second: float, *, head_since: float | None = None, backlog: int = 0, taken: object = 0) -> Step:
    since = None if head_since is None else START + head_since
    return watch.look(START + second, head_since=since, backlog=backlog, taken=taken)


def test_a_head_may_take_its_time_from_when_it_began(watch: Watch) -> None:
    assert look(watch, 500, head_since=495) is Step.NOTHING
    assert look(watch, 504.9, head_since=495) is Step.NOTHING
    assert look(watch, 505, head_since=495) is Step.REFUSE


def test_a_client_without_anything_to_take_may_be_silent(watch: Watch) -> None:
    for second in range(0, 600, 20):
        assert look(watch, second) is Step.NOTHING


def test_a_client_that_takes_nothing_is_given_up(watch: Watch) -> None:
    assert look(watch, 100, backlog=5000, taken=1) is Step.NOTHING
    assert look(watch, 129, backlog=5000, taken=1) is Step.NOTHING
    assert look(watch, 130, backlog=5000, taken=1) is Step.GIVE_UP


def test_a_client_that_takes_something_is_waited_for_however_much_there_is(watch: Watch) -> None:
    for second in range(0, 300, 20):
        assert look(watch, second, backlog=5000 + second, taken=second) is Step.NOTHING


def test_what_waits_longer_the_second_time_is_timed_anew(watch: Watch) -> None:
    look(watch, 100, backlog=1, taken=1)
    look(watch, 120, backlog=0, taken=1)
    assert look(watch, 149, backlog=1, taken=1) is Step.NOTHING
    assert look(watch, 150, backlog=1, taken=1) is Step.GIVE_UP


def test_connections_of_one_moment_grow_old_at_different_ones() -> None:
    limits = Http1Limits.of(SETTINGS)
    watches = [Watch(limits, START) for _ in range(200)]
    assert not any(each.is_old(START + 899) for each in watches)
    old = sum(each.is_old(START + 1000) for each in watches)
    assert 20 < old < 180
    assert all(each.is_old(START + 1101) for each in watches)
