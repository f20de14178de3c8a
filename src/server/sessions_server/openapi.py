"""The OpenAPI document, made from the route table and the types of the bodies.

Clients are made from it, and so are tests: a fuzzer sends what it describes, and every answer has to be one that it lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from sessions_core import errors
from sessions_core.domain.access import Credential
from sessions_server import parameters, problems
from sessions_server.data_plane import document as data_plane
from sessions_server.problems import INTERNAL, PROBLEM_JSON, TABLE
from sessions_server.route import Route
from sessions_server.wire.examples import EXAMPLES, MESSAGE
from sessions_server.wire.schemas import Parameter
from sessions_server.wire.values import Wire

Schemas = Mapping[type[Wire], dict[str, Any]]
JSON: Final = "application/json"
_REF: Final = "#/components/schemas/{name}"
_DESCRIPTION: Final = """\
Durable, bidirectional channels between clients and agents. Every answer has `X-Request-Id`, and every error is one JSON object.
`GET` routes answer `HEAD`, and every path answers a browser's preflight (`OPTIONS`). The content type of a request does not matter."""
_ANYWHERE: Final = (
    problems.MalformedRequestError,
    problems.UrlTooLongError,
    problems.HeadersTooLargeError,
    problems.RequestTimeoutError,
    problems.TooManyConnectionsError,
)
_WITH_CREDENTIAL: Final = (
    problems.UnauthenticatedError,
    problems.ForbiddenError,
    problems.TooManyRequestsError,
    errors.UnavailableError,
)
_WITH_BODY: Final = (problems.BodyTooLargeError, problems.UnsupportedEncodingError)
_SCHEMES: Final = {
    Credential.ROOT_KEY: ("rootKey", "`tr_dev_…`: everything in its environment."),
    Credential.ADDITIONAL_KEY: ("additionalKey", "`tr_dev_sk_…`: what its scopes say."),
    Credential.PUBLIC_TOKEN: ("publicToken", "A JWT: what its scopes say."),
}
_PROBLEM: Final = {
    "type": "object",
    "description": "What went wrong.",
    "required": ["error", "code"],
    "properties": {
        "ok": {"type": "boolean", "enum": [False], "description": "There if it was an append."},
        "error": {"type": "string", "minLength": 1, "description": "A sentence."},
        "code": {"type": "string", "enum": sorted({answer.code for answer in TABLE.values()})},
        "field": {"type": "string", "description": "The path of the wrong value, on 400."},
        "details": {"description": "More, if there is more."},
        "closedReason": {"type": "string", "description": "Why the session is closed."},
        "title": {"type": "string", "description": "What kind of problem it is, on 429."},
        "status": {"type": "integer", "description": "The status, on 429."},
        "type": {"type": "string", "format": "uri", "description": "What the status means, on 429."},
        "detail": {"type": "string", "description": "The sentence again, on 429."},
        "limit": {"type": "integer", "description": "How many there may be at once, on 429."},
        "remaining": {"type": "integer", "description": "How many there may be now, on 429."},
        "reset": {"type": "integer", "description": "When there may be one more, in Unix milliseconds, on 429."},
        "secondsUntilReset": {"type": "integer", "description": "How long that will be, on 429."},
    },
}


def make_document(routes: Iterable[Route]) -> bytes:
    """Return the document as JSON."""
    lines = list(routes)
    schemas, components = _schemas_of(lines)
    paths: dict[str, dict[str, Any]] = {}
    for route in lines:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    schemes = {name: _scheme(text) for name, text in _SCHEMES.values()}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Sessions", "version": "1", "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "paths": paths | data_plane.PATHS,
        "components": {
            "schemas": {**components, **data_plane.SCHEMAS, "Problem": _PROBLEM},
            "responses": {_refusal_name(status): _refusal(status) for status in _refusals_of(lines)},
            "securitySchemes": schemes | data_plane.SCHEMES,
        },
    }
    return json.dumps(document).encode()


def _schemas_of(lines: Iterable[Route]) -> tuple[Schemas, dict[str, Any]]:
    """Return how each type of body is referred to, and the descriptions that are referred to."""
    types = {kind for route in lines for kind in (route.body, route.response, *route.others.values()) if kind}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    shown, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    return dict(zip(ordered, shown, strict=True)), components


def _operation(route: Route, schemas: Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{(route.name or route.path.strip('/')).replace('{io}', 'channel')}",
        "summary": route.summary,
        "tags": [route.handler.__module__.rpartition(".")[2]],
        "parameters": _parameters(route),
        "responses": _responses(route, schemas),
        "security": [{_SCHEMES[kind][0]: []} for kind in Credential if kind in _credentials(route)],
    }
    if route.cap is not None:
        operation["requestBody"] = _json_body(route.body, schemas) if route.body is not None else _TEXT_BODY
    return operation


def _credentials(route: Route) -> set[Credential]:
    """Return what opens the route in at least one direction."""
    return {kind for line in route.expand() if line.access is not None for kind in line.access.credentials}


def _json_body(kind: type[Wire], schemas: Schemas) -> dict[str, Any]:
    is_required = any(field.required for field in msgspec.structs.fields(kind))
    return {"required": is_required, "content": {JSON: {"schema": schemas[kind], "example": EXAMPLES[kind]}}}


_TEXT_BODY: Final = {
    "description": "Any text, which is not parsed.",
    "required": False,
    "content": {
        "text/plain": {"schema": {"type": "string"}, "example": "hello"},
        JSON: {"schema": {}, "example": MESSAGE},
    },
}


def _parameters(route: Route) -> list[dict[str, Any]]:
    names = [segment[1:-1] for segment in route.path.split("/") if segment.startswith("{")]
    placed = [
        *(("path", parameters.PATH[name]) for name in names),
        *(("query", each) for each in route.parameters),
        *(("header", each) for each in (*route.headers, parameters.REQUEST)),
    ]
    return [{"in": place, "name": each.name, **each.described()} for place, each in placed]


def _responses(route: Route, schemas: Schemas) -> dict[str, Any]:
    """Return every answer by its status. One to ``HEAD`` has no body, whatever the status."""
    usual = (route.status, route.response)
    shown = {
        str(status): _answer(status, kind, route, schemas)
        for status, kind in (usual, *route.others.items())
        if kind is not None or status == route.status < HTTPStatus.BAD_REQUEST
    }
    refusals = {str(status): {"$ref": f"#/components/responses/{_refusal_name(status)}"} for status in _refused(route)}
    return dict(sorted({**refusals, **shown}.items()))


def _answer(status: int, kind: type[Wire] | None, route: Route, schemas: Schemas) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "headers": _headers((parameters.ANSWER, *(route.sends if status == route.status else ()))),
    }
    if kind is not None:
        answer["content"] = {JSON: {"schema": schemas[kind]}}
    elif route.media is not None:
        answer["content"] = {route.media: {"schema": {"type": "object" if route.media == JSON else "string"}}}
    return answer


def _refused(route: Route) -> set[int]:
    """Return the statuses of errors that a request to *route* may be answered with."""
    classes: list[type[Exception]] = [*_ANYWHERE]
    if route.access is not None:
        classes += _WITH_CREDENTIAL
    if "{" in route.path:
        classes.append(errors.NotFoundError)
    if route.cap is not None:
        classes += _WITH_BODY
    own = {status for status, kind in route.others.items() if kind is None}
    refusals = {refusal.status for refusal in (route.refusal, route.out_refusal) if refusal is not None}
    return {INTERNAL.status} | own | refusals | {TABLE[kind].status for kind in classes}


def _refusals_of(lines: Iterable[Route]) -> list[int]:
    return sorted({status for route in lines for status in _refused(route)})


def _refusal_name(status: int) -> str:
    return f"Problem{status:d}"


def _refusal(status: int) -> dict[str, Any]:
    codes = sorted({answer.code for answer in (*TABLE.values(), INTERNAL) if answer.status == status})
    is_excess = status == HTTPStatus.TOO_MANY_REQUESTS
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in codes)}",
        "headers": _headers((parameters.ANSWER, parameters.RETRY, *(parameters.EXCESS if is_excess else ()))),
        "content": {PROBLEM_JSON if is_excess else JSON: {"schema": {"$ref": _REF.format(name="Problem")}}},
    }


def _headers(sent: Iterable[Parameter]) -> dict[str, Any]:
    return {each.name: each.described() for each in sent}


def _scheme(text: str) -> dict[str, str]:
    return {"type": "http", "scheme": "bearer", "description": text}
