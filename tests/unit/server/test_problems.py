"""The table of errors: complete, and what becomes of it in an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import msgspec
import pytest
from aiohttp import web

import sessions_server.app  # noqa: F401 - so that every error class of the server is defined
from sessions_core import errors
from sessions_core.domain.guard import Guard
from sessions_server.problems import INTERNAL, TABLE, Refusal, answer_for, describe, problem_response


def descendants(cls: type[BaseException]) -> Iterator[type[BaseException]]:
    for child in cls.__subclasses__():
        if child.__module__.startswith("sessions_server.cli"):
            continue  # what a command meets as a client is never an answer of ours
        if child.__module__.startswith(("sessions_core", "sessions_server")):
            yield child
            yield from descendants(child)


def name_of(cls: type[BaseException]) -> str:
    return cls.__name__


CLASSES: list[type[BaseException]] = sorted({errors.SessionsError, *descendants(errors.SessionsError)}, key=name_of)


def make(cls: type[BaseException]) -> BaseException:
    """Make an error whose members have the names of what they are."""
    names = [field.name for field in attrs.fields(cls) if field.default is attrs.NOTHING] if attrs.has(cls) else []
    values = {"size": 9, "limit": 5, "attempts": 3, "actual": Guard.live(4), "allowed": ("GET",)}
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
    assert {"error", "code"} <= body.keys() <= {"error", "code", "field", "details", "closedReason"}
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
