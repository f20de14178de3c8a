from __future__ import annotations

import pytest

from sessions_server.http2.limits import Http2Limits
from sessions_server.http2.watch import Step, Watch

LIMITS = Http2Limits(headers=10, quiet=30, pong=20, idle=600)
START = 1000.0


@pytest.fixture
def watch() -> Watch:
    made = Watch(LIMITS, START)
    made.is_greeted = True
    return made


def test_a_client_that_sends_no_settings_is_refused() -> None:
    watch = Watch(LIMITS, START)
    watch.hear(START + 9)
    assert watch.look(START + 9, is_busy=False) is Step.NOTHING
    assert watch.look(START + 10, is_busy=False) is Step.REFUSE


def test_half_sent_headers_are_waited_for_from_when_they_began(watch: Watch) -> None:
    for second in range(3, 13):
        watch.hear(START + second)
        watch.follow_headers(START + second, is_in_headers=True)
        assert watch.look(START + second, is_busy=False) is Step.NOTHING
    assert watch.look(START + 13, is_busy=False) is Step.REFUSE


def test_headers_that_end_are_forgotten(watch: Watch) -> None:
    watch.follow_headers(START + 1, is_in_headers=True)
    watch.follow_headers(START + 2, is_in_headers=False)
    watch.follow_headers(START + 15, is_in_headers=True)
    assert watch.look(START + 20, is_busy=False) is Step.NOTHING


def test_a_silent_client_is_asked_once_and_then_given_up(watch: Watch) -> None:
    assert watch.look(START + 29, is_busy=True) is Step.NOTHING
    assert watch.look(START + 30, is_busy=True) is Step.ASK
    assert watch.look(START + 49, is_busy=True) is Step.NOTHING
    assert watch.look(START + 50, is_busy=True) is Step.GIVE_UP


def test_a_client_that_answers_is_asked_again_later(watch: Watch) -> None:
    assert watch.look(START + 30, is_busy=True) is Step.ASK
    watch.hear(START + 31)
    watch.is_asked = False
    assert watch.look(START + 60, is_busy=True) is Step.NOTHING
    assert watch.look(START + 61, is_busy=True) is Step.ASK


def test_talking_is_no_answer(watch: Watch) -> None:
    assert watch.look(START + 30, is_busy=True) is Step.ASK
    watch.hear(START + 49)
    assert watch.look(START + 50, is_busy=True) is Step.GIVE_UP


def test_a_connection_without_requests_is_let_go_although_it_answers(watch: Watch) -> None:
    watch.look(START + 100, is_busy=True)
    watch.is_asked = False
    watch.hear(START + 699)
    assert watch.look(START + 699, is_busy=False) is Step.NOTHING
    assert watch.look(START + 700, is_busy=False) is Step.LET_GO


def test_it_looks_often_enough_for_the_shortest_time() -> None:
    assert Watch(LIMITS, START).interval == 5
