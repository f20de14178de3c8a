"""The OpenAPI document, made from the route table and the types of the bodies."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from sessions_core.domain.channel import Io
from sessions_server.problems import TABLE
from sessions_server.route import Route

_REF: Final = "#/components/schemas/{name}"
_PROBLEM: Final = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {
        "ok": {"type": "boolean"},
        "error": {"type": "string"},
        "code": {"type": "string", "enum": sorted({answer.code for answer in TABLE.values()})},
        "field": {"type": "string"},
        "details": {},
        "closedReason": {"type": "string"},
    },
}


def make_document(routes: Iterable[Route]) -> bytes:
    """Return the document as JSON."""
    lines = list(routes)
    types = {kind for route in lines for kind in (route.body, route.response) if kind is not None}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    shown, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    schemas = dict(zip(ordered, shown, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in lines:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Sessions", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": {**components, "Problem": _PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
    return json.dumps(document).encode()


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{(route.name or route.path.strip('/')).replace('{io}', 'channel')}",
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": {str(route.status): _success(route, schemas), "default": _content("Problem", "Refused")},
        "security": [] if route.name is None else [{"bearer": []}],
    }
    if route.body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": schemas[route.body]}}}
    elif route.cap is not None:
        operation["requestBody"] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    return operation


def _success(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    if route.response is None:
        return {"description": "Done"}
    return {"description": "Done", "content": {"application/json": {"schema": schemas[route.response]}}}


def _content(name: str, description: str) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=name)}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _parameters(route: Route) -> list[dict[str, Any]]:
    names = [segment[1:-1] for segment in route.path.split("/") if segment.startswith("{")]
    return [
        *(_parameter("path", name, {"enum": list(Io)} if name == "io" else {}) for name in names),
        *(_parameter("query", name) for name in route.parameters),
        *(_parameter("header", name) for name in route.headers),
    ]


def _parameter(place: str, name: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"in": place, "name": name, "required": place == "path", "schema": {"type": "string", **(schema or {})}}
