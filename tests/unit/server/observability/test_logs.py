"""Log lines: readable, parsable, one per line, and silent about what nobody did wrong."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable

import pytest
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web import RequestPayloadError

from sessions_core.domain.events import Event, RunEnded, SystemFailed, TurnFailed
from sessions_core.domain.ids import RunId
from sessions_core.domain.status import RunStatus
from sessions_server.observability.logs import (
    EventLog,
    JsonFormatter,
    Observers,
    PlainFormatter,
    log_request,
    set_up_logging,
)


def record(message: str = "request", **extra: object) -> logging.LogRecord:
    return logging.getLogger("sessions.test").makeRecord("sessions.test", 20, "f", 1, message, (), None, extra=extra)


def test_a_plain_line_shows_its_fields_and_cannot_be_broken() -> None:
    line = PlainFormatter().format(record(path="/a\nb\udcff", status=200))
    assert line.endswith("INFO    sessions.test: request path='/a\\nb\\udcff' status=200")
    assert "\n" not in line


def test_a_json_line_is_one_object() -> None:
    line = JsonFormatter().format(record(path="/a\nb", status=200))
    assert json.loads(line).items() >= {"message": "request", "path": "/a\nb", "status": 200, "level": "INFO"}.items()
    assert "\n" not in line


def test_a_stack_comes_with_the_line() -> None:
    try:
        raise RuntimeError("why")
    except RuntimeError:
        failed = logging.LogRecord("sessions.test", 40, "f", 1, "failed", (), sys.exc_info())
    assert "RuntimeError: why" in PlainFormatter().format(failed)
    assert "RuntimeError: why" in json.loads(JsonFormatter().format(failed))["exception"]


@pytest.fixture
def restored_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)


@pytest.mark.parametrize(
    "nonsense",
    [LineTooLong(b"Bearer tr_dev_secret", 8190), RequestPayloadError("Can not decode content-encoding: secret")],
    ids=["no HTTP", "broken body"],
)
def test_a_client_that_speaks_no_http_leaves_no_stack_and_no_credential(
    restored_logging: None, capsys: pytest.CaptureFixture[str], nonsense: Exception
) -> None:
    set_up_logging("INFO", as_json=False)
    try:
        raise nonsense
    except (LineTooLong, RequestPayloadError):
        logging.getLogger("aiohttp.server").exception("Error handling request")
    logging.getLogger("sessions.server").error("real")
    log_request("id-1", "GET", "/x", 200, 0.0123)
    err = capsys.readouterr().err
    assert "secret" not in err
    assert "real" in err
    assert "milliseconds=12.3" in err


def test_trouble_is_a_warning_and_the_rest_is_for_those_who_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sessions.events")
    tell = Observers((EventLog(), EventLog()))
    tell(RunEnded(run_id=RunId("run_1"), status=RunStatus.COMPLETED_SUCCESSFULLY))
    tell(SystemFailed(step="sweep", error="down"))
    assert [(r.levelname, r.message) for r in caplog.records] == [("DEBUG", "RunEnded")] * 2 + [
        ("WARNING", "SystemFailed")
    ] * 2


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (RunStatus.CANCELED, "INFO"),
        (RunStatus.COMPLETED_SUCCESSFULLY, "INFO"),
        (RunStatus.TIMED_OUT, "WARNING"),
        (RunStatus.CRASHED, "WARNING"),
    ],
)
def test_a_run_that_ends_because_it_was_replaced_or_its_session_closed_is_no_trouble(
    status: RunStatus, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sessions.events")
    EventLog()(RunEnded(run_id=RunId("run_1"), status=status, error="it was told why"))
    assert [line.levelname for line in caplog.records] == [level]


@pytest.mark.parametrize(
    "make",
    [
        lambda error: TurnFailed(run_id=RunId("run_1"), error="ValueError", exception=error),
        lambda error: RunEnded(
            run_id=RunId("run_1"), status=RunStatus.COMPLETED_WITH_ERRORS, error="ValueError", exception=error
        ),
    ],
    ids=["turn", "run"],
)
def test_a_failure_of_a_task_is_an_error_with_its_traceback(
    make: Callable[[BaseException], Event], caplog: pytest.LogCaptureFixture
) -> None:
    def answer() -> None:
        raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason") as caught:
        answer()
    event = make(caught.value)
    assert "the reason" not in repr(event)
    EventLog()(event)
    [line] = caplog.records
    assert line.levelname == "ERROR"
    assert "the reason" not in str(vars(line)["event"])
    for shown in (PlainFormatter().format(line), json.loads(JsonFormatter().format(line))["exception"]):
        assert "in answer" in shown
        assert "ValueError: the reason" in shown
