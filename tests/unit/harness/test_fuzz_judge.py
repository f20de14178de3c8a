"""The judge of the fuzzers: it lets the document's answers pass, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from harness.fuzz_judge import Judge, Told
from harness.fuzz_requests import Made, Things, make_requests
from sessions_server.openapi import make_document
from sessions_server.table import ROUTES

WHOLE: dict[str, Any] = json.loads(make_document(ROUTES))
PATH = "/api/v1/runs/{run}"
DOCUMENT = {**WHOLE, "paths": {PATH: WHOLE["paths"][PATH]}}
JUDGE = Judge(DOCUMENT)
RUN = {
    "id": "run_1",
    "sessionId": "session_1",
    "taskIdentifier": "echo",
    "status": "PENDING",
    "reason": "initial",
    "attempt": 0,
    "epoch": 0,
    "previousRunId": None,
    "createdAt": "2026-01-02T03:04:05.678Z",
    "startedAt": None,
    "endedAt": None,
    "error": None,
}
MISSING = {"error": "Run not found", "code": "run_not_found"}
THINGS = Things(session="chat-1", run="run_1", waitpoint="waitpoint_1", basin="basin")


@pytest.fixture(scope="module")
def made() -> list[Made]:
    return make_requests(DOCUMENT, examples=2, edges=5, number=1)


def told(status: int, said: Any, **changes: Any) -> Told:
    headers = {"content-type": ["application/json; charset=utf-8"], "x-request-id": ["a-1"]}
    return attrs.evolve(Told(status=status, headers=headers, body=json.dumps(said).encode(), seconds=0.1), **changes)


def problems(made: list[Made], answer: Told, *, is_admitted: bool = True) -> list[str]:
    return list(JUDGE.problems(made[0], made[0].target(THINGS, insist=True), answer, is_admitted=is_admitted))


def test_requests_are_made_of_every_kind_and_name_what_is_there(made: list[Made]) -> None:
    assert len(made) >= 6
    assert {each.route for each in made} == {f"GET {PATH}"}
    assert {each.target(THINGS, insist=True) for each in made} == {"/api/v1/runs/run_1"}
    assert {each.target(THINGS, insist=False) for each in made} - {"/api/v1/runs/run_1"}


@pytest.mark.parametrize(("status", "body"), [(200, RUN), (404, MISSING), (400, {**MISSING, "field": "run"})])
def test_what_the_document_describes_passes(made: list[Made], status: int, body: Any) -> None:
    assert problems(made, told(status, body)) == []


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (told(200, {"status": "LOST", **RUN} | {"status": "LOST"}), "not as the document describes it"),
        (told(200, {"attempt": "1"} | RUN | {"attempt": "1"}), "not as the document describes it"),
        (told(200, {"id": "run_1"}), "not as the document describes it"),
        (told(201, RUN), "a status that the document does not list"),
        (told(500, MISSING), "a failure of ours"),
        (told(503, MISSING), "a failure of ours"),
        (told(404, {"message": "no"}), "an error in another shape"),
        (told(404, None, body=b"not found"), "an error that is no JSON"),
        (told(404, {**MISSING, "code": "strange"}), "not as the document describes it"),
        (told(200, RUN, headers={"content-type": ["text/html"], "x-request-id": ["a"]}), "does not list text/html"),
        (told(200, RUN, headers={"content-type": ["application/json"]}), "no request id"),
        (told(200, RUN, seconds=99.0), "it took"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.status} {value.body[:45]!r}",
)
def test_what_it_does_not_describe_is_found(made: list[Made], answer: Told, problem: str) -> None:
    assert any(problem in found for found in problems(made, answer))


def test_who_has_no_credential_is_not_let_in(made: list[Made]) -> None:
    assert problems(made, told(200, RUN), is_admitted=False) == ["let in without a credential"]
    assert problems(made, told(401, {"error": "no", "code": "unauthenticated"}), is_admitted=False) == []
