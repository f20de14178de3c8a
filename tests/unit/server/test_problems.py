"""The table of errors: complete, and what becomes of it in an answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import msgspec
import pytest
from aiohttp import web

import sessions_server.app  # noqa: F401 - so that every error class of the server is defined
from sessions_core import errors
from sessions_core.domain.guard import Guard
from sessions_server.problems import (
    INTERNAL,
    TABLE,
    RateLimitedError,
    Refusal,
    TooManyRequestsError,
    TooManyStreamsError,
    answer_for,
    describe,
    problem_response,
)


def descendants(cls: type[BaseException]) -> Iterator[type[BaseException]]:
    for child in cls.__subclasses__():
        if child.__module__.startswith("sessions_server.cli"):
            continue  # what a command meets as a client is never an answer of ours
        if child.__module__.startswith(("sessions_core", "sessions_server")):
            yield child
            yield from descendants(child)


def name_of(cls: type[BaseException]) -> str:
    return cls.__name__


OF_LIMITS = {"title", "status", "type", "detail", "limit", "remaining", "reset", "secondsUntilReset"}
CLASSES: list[type[BaseException]] = sorted({errors.SessionsError, *descendants(errors.SessionsError)}, key=name_of)


def make(cls: type[BaseException]) -> BaseException:
    """Make an error whose members have the names of what they are."""
    names = [field.name for field in attrs.fields(cls) if field.default is attrs.NOTHING] if attrs.has(cls) else []
    values = {
        "size": 9,
        "limit": 5,
        "attempts": 3,
        "actual": Guard.live(4),
        "allowed": ("GET",),
        "wait": timedelta(milliseconds=1500),
        "resets_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return cls(*(values.get(name, f"the-{name}") for name in names))


def body_of(response: web.StreamResponse) -> dict[str, Any]:
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    return dict(msgspec.json.decode(response.body))


@pytest.mark.parametrize("cls", CLASSES, ids=name_of)
def test_every_error_class_has_its_own_line_in_the_table(cls: type[BaseException]) -> None:
    assert cls in TABLE


@pytest.mark.parametrize("cls", CLASSES, ids=name_of)
def test_every_error_becomes_one_json_shape(cls: type[BaseException]) -> None:
    error = make(cls)
    response = problem_response(error)
    body = body_of(response)
    assert response.status == TABLE[cls].status
    more = OF_LIMITS if isinstance(error, TooManyRequestsError) else set()
    assert {"error", "code"} <= body.keys() <= {"error", "code", "field", "details", "closedReason"} | more
    assert body["code"] == TABLE[cls].code
    if isinstance(error, errors.InvalidError):
        assert body["field"] == error.field


def test_a_class_that_is_not_in_the_table_is_answered_as_its_nearest_ancestor() -> None:
    class OddConflictError(errors.StaleRunError):
        pass

    assert answer_for(OddConflictError("run_x")).code == "stale_run"


@pytest.mark.parametrize("error", [ValueError("secret"), KeyError("secret"), ExceptionGroup("secret", [OSError()])])
def test_what_is_not_ours_is_an_internal_error_without_its_text(error: Exception) -> None:
    assert answer_for(error) is INTERNAL
    assert describe(error) == {"error": "Something went wrong", "code": "internal_error"}


def test_the_cause_is_never_shown() -> None:
    error = errors.StoreUnavailableError()
    error.__cause__ = OSError("password=secret")
    assert "secret" not in str(describe(error))


def test_a_guard_is_an_inside_matter() -> None:
    assert "live" not in describe(errors.GuardMismatchError(Guard.live(3)))["error"]


@pytest.mark.parametrize("cls", [errors.TaskMismatchError, errors.StaleRunError, errors.SessionClosedError])
def test_a_conflict_that_lasts_tells_the_clients_not_to_retry(cls: type[BaseException]) -> None:
    assert problem_response(make(cls)).headers["x-should-retry"] == "false"


def test_a_conflict_that_passes_tells_them_to() -> None:
    response = problem_response(errors.ClaimExhaustedError("chat-1", 3))
    assert response.headers["x-should-retry"] == "true"
    assert response.headers["Retry-After"] == "1"


def test_a_rate_limit_is_told_in_the_words_of_the_contract_and_in_ours() -> None:
    error = RateLimitedError("token", 60, timedelta(milliseconds=1500), datetime(2026, 1, 1, tzinfo=UTC))
    response = problem_response(error, says_ok=True)
    sentence = "Rate limit exceeded: 0/60 requests remaining for this token. Retry in 2 seconds."
    assert body_of(response) == {
        "ok": False,
        "error": sentence,
        "code": "rate_limited",
        "title": "Rate Limit Exceeded",
        "status": 429,
        "type": "https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/429",
        "detail": sentence,
        "limit": 60,
        "remaining": 0,
        "reset": 1_767_225_600_000,
        "secondsUntilReset": 2,
    }
    headers = {name.lower(): value for name, value in response.headers.items()}
    assert headers == {
        "content-type": "application/problem+json",
        "retry-after": "2",
        "x-ratelimit-limit": "60",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "1767225600000",
    }


def test_too_many_streams_are_told_without_a_time_of_which_nobody_knows() -> None:
    response = problem_response(TooManyStreamsError("session", 7))
    body = body_of(response)
    assert (body["code"], body["limit"], "reset" in body) == ("too_many_streams", 7, False)
    assert response.headers["Retry-After"] == "1"
    assert "x-should-retry" not in response.headers, "the official clients obey it instead of waiting"


@pytest.mark.parametrize(
    ("error", "word"),
    [(errors.SessionClosedError("x", "done"), "a closed"), (errors.SessionExpiredError("x"), "an expired")],
)
def test_a_route_says_in_its_own_way_that_a_session_is_over(error: errors.ClosedError, word: str) -> None:
    response = problem_response(error, refusal=Refusal(400, "Cannot append to {a} session"), says_ok=True)
    assert response.status == 400
    assert body_of(response) == {
        "ok": False,
        "error": f"Cannot append to {word} session",
        "code": "session_closed",
        "closedReason": error.closed_reason,
    }


def test_a_lone_surrogate_in_a_name_does_not_break_the_answer() -> None:
    assert body_of(problem_response(errors.SessionNotFoundError("a\ud800")))["code"] == "session_not_found"
