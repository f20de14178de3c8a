"""Judges answers by the OpenAPI document.

What is wrong with an answer: a status that the document does not list, or any 5xx; another content type than it says there; a
body that does not fit its schema; no request id; an error in another shape; more than ``PATIENCE`` seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
import requests
import schemathesis
from schemathesis.errors import FailureGroup

from harness.fuzz_requests import Made

PATIENCE: Final = 10.0


@attrs.frozen(kw_only=True)
class Told:
    """An answer; of a stream only its beginning."""

    status: int
    headers: Mapping[str, list[str]]
    body: bytes
    seconds: float

    @property
    def content_type(self) -> str:
        """Without parameters."""
        return self.headers.get("content-type", [""])[0].partition(";")[0]


@attrs.frozen
class Judge:
    """Says what is wrong with answers."""

    _document: Mapping[str, Any]

    def problems(self, made: Made, target: str, told: Told, *, is_admitted: bool) -> Iterator[str]:
        """Say what is wrong with an answer."""
        listed = self._listed(made)
        leads_nowhere = "//" in target.partition("?")[0] or target.partition("?")[0].endswith("/")
        if told.status >= 500:
            yield "a failure of ours"
        if str(told.status) not in listed["responses"] and not (leads_nowhere and told.status == 301):
            yield "a status that the document does not list"
        if not told.headers.get("x-request-id"):
            yield "no request id"
        if told.seconds > PATIENCE:
            yield f"it took {told.seconds:.1f} s"
        if listed["security"] and not is_admitted and told.status not in (400, 401, 422) and not leads_nowhere:
            yield "let in without a credential"
        if told.status >= 400 and made.method != "HEAD" and not target.startswith("/v1/"):
            yield from _problems_of_refusal(told)
        if told.body and told.content_type not in self._content_types(made, told.status):
            yield f"the document does not list {told.content_type}"
        elif told.body:
            yield from _problems_of_body(made, told)

    def _listed(self, made: Made) -> Mapping[str, Any]:
        listed: Mapping[str, Any] = self._document["paths"][made.operation.path][made.method.lower()]
        return listed

    def _content_types(self, made: Made, status: int) -> Mapping[str, Any]:
        answer = self._listed(made)["responses"].get(str(status), {})
        if "$ref" in answer:
            answer = self._document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        content: Mapping[str, Any] = answer.get("content", {})
        return content


def _problems_of_refusal(told: Told) -> Iterator[str]:
    try:
        body = json.loads(told.body)
    except ValueError:
        yield "an error that is no JSON"
        return
    if not ({"error", "code"} <= body.keys() and body["error"] and body["code"]):
        yield "an error in another shape"


def _problems_of_body(made: Made, told: Told) -> Iterator[str]:
    if told.content_type == "text/event-stream":
        if not told.body.startswith((b"event: ", b"data: ")):
            yield "a stream that begins oddly"
        return
    response = schemathesis.Response(
        status_code=told.status,
        headers=told.headers,
        content=told.body,
        request=requests.Request(made.method, "http://server").prepare(),
        elapsed=told.seconds,
        verify=False,
        encoding="utf-8",
    )
    try:
        made.operation.validate_response(response)
    except (AssertionError, FailureGroup) as error:
        yield f"not as the document describes it ({error!r:.200})"
