"""What the parent of several server processes decides, and the metrics that they show together."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessions_core.errors import InvalidError
from sessions_server.cli.processes import STEADY_SECONDS, Child, bind
from sessions_server.observability.process_metrics import ProcessMetrics, merge


def test_a_process_that_keeps_dying_is_started_again_more_and_more_slowly() -> None:
    child, now, pauses = Child(0), 1000.0, []
    for _ in range(9):
        child.started = now
        child.died(now + 1)
        pauses.append(child.due - now - 1)
        now = child.due
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_one_that_has_lived_for_a_while_is_started_again_at_once() -> None:
    child = Child(0, pid=7, started=0.0, deaths=9, is_ready=True)
    child.died(STEADY_SECONDS + 1)
    assert (child.due, child.deaths, child.pid, child.is_ready) == (STEADY_SECONDS + 1.5, 1, 0, False)


def test_a_free_port_is_the_same_on_every_address_of_a_host() -> None:
    sockets = bind("localhost", 0)
    try:
        assert len({listening.getsockname()[1] for listening in sockets}) == 1
        assert all(listening.getsockname()[1] for listening in sockets)
    finally:
        for listening in sockets:
            listening.close()


def test_a_port_that_somebody_has_is_refused() -> None:
    (taken,) = bind("127.0.0.1", 0)
    with taken, pytest.raises(InvalidError, match="--host/--port cannot be listened on: Address already in use"):
        bind("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(InvalidError, match="--host/--port cannot be listened on"):
        bind(host, 0)


def test_metrics_of_processes_are_one_text_with_each_family_once(tmp_path: Path) -> None:
    one, two = ProcessMetrics(tmp_path, 0), ProcessMetrics(tmp_path, 1)
    one.request("/a", 200, 0.01)
    two.request("/a", 200, 0.02)
    two.request("/b", 404, None)
    two.publish()
    text = one.render().decode()
    for line in (
        'sessions_http_requests_total{process="0",route="/a",status="200"} 1.0',
        'sessions_http_requests_total{process="1",route="/a",status="200"} 1.0',
        'sessions_http_requests_total{process="1",route="/b",status="404"} 1.0',
        'sessions_http_seconds_count{process="1",route="/a"} 1.0',
        'sessions_subscriptions{process="0"} 0.0',
    ):
        assert text.count(f"{line}\n") == 1
    assert text.count("# TYPE sessions_http_requests_total counter\n") == 1
    assert text.count("# TYPE sessions_http_seconds histogram\n") == 1


def test_what_one_process_does_not_know_does_not_hide_what_another_does() -> None:
    text = merge([("0", ""), ("1", "# HELP a_total A.\n# TYPE a_total counter\na_total 3.0\n")]).decode()
    assert text == '# HELP a_total A.\n# TYPE a_total counter\na_total{process="1"} 3.0\n'
