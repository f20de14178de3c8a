"""The OpenAPI document: complete, true to what reads the requests, and exact enough to make requests from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import attrs
import msgspec
import pytest

from sessions_core.domain.access import Credential
from sessions_core.domain.trigger_config import MAX_DURATION_SECONDS, TriggerConfig
from sessions_core.errors import InvalidError
from sessions_core.testing import ManualClock
from sessions_server.data_plane import document as data_plane
from sessions_server.data_plane.json_forms import decode_append_input
from sessions_server.data_plane.requests import ReadQuery
from sessions_server.data_plane.service import RECORDS
from sessions_server.openapi import make_document
from sessions_server.problems import INTERNAL, TABLE
from sessions_server.route import Context, Query, Route
from sessions_server.table import ROUTES
from sessions_server.wire.attempts import CompleteAttempt, StartAttempt
from sessions_server.wire.examples import EXAMPLES
from sessions_server.wire.requests import CreateSession, CreateWait
from sessions_server.wire.values import decode_body

DOCUMENT: dict[str, Any] = json.loads(make_document(ROUTES))
SCHEMAS = DOCUMENT["components"]["schemas"]
each_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")


def operation(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][route.path][route.method.lower()]
    return found


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in a JSON value."""
    if isinstance(value, dict):
        yield value
        for member in value.values():
            yield from nodes(member)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


def resolve(reference: str) -> Any:
    found: Any = DOCUMENT
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return found


def test_every_route_is_there_once_and_nothing_else() -> None:
    listed = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]
    planes = [(method.upper(), path) for path, methods in data_plane.PATHS.items() for method in methods]
    assert sorted(listed) == sorted([*((route.method, route.path) for route in ROUTES), *planes])
    names = [each["operationId"] for methods in DOCUMENT["paths"].values() for each in methods.values()]
    assert len(set(names)) == len(names)


def test_every_reference_leads_somewhere_and_nothing_is_described_for_nobody() -> None:
    references = {node["$ref"] for node in nodes(DOCUMENT) if "$ref" in node}
    assert all(resolve(reference) for reference in references)
    described = {
        f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in DOCUMENT["components"][kind]
    }
    assert described == references


@each_route
def test_what_a_path_names_is_described(route: Route) -> None:
    named = set(re.findall(r"\{(\w+)\}", route.path))
    given = [each for each in operation(route)["parameters"] if each["in"] == "path"]
    assert {each["name"] for each in given} == named
    assert all(each["required"] for each in given)


@each_route
def test_every_parameter_says_what_it_is_and_what_it_may_be(route: Route) -> None:
    given = operation(route)["parameters"]
    assert len({(each["in"], each["name"]) for each in given}) == len(given)
    for each in given:
        assert each["description"].endswith(".")
        assert {"type", "anyOf"} & each["schema"].keys()


@each_route
def test_every_answer_says_its_content_and_its_request_id(route: Route) -> None:
    responses = operation(route)["responses"]
    assert str(route.status) in responses
    assert "default" not in responses, "it would take any status for a known one"
    for status, answer in responses.items():
        whole = resolve(answer["$ref"]) if "$ref" in answer else answer
        assert whole["headers"]["X-Request-Id"]["required"]
        if int(status) >= 400 and (route.path, status) != ("/readyz", "503"):
            media = "application/problem+json" if status == "429" else "application/json"
            assert whole["content"][media]["schema"] == {"$ref": "#/components/schemas/Problem"}
        elif route.method != "HEAD":
            assert whole["content"]


@each_route
def test_what_opens_a_route_is_what_the_pipeline_asks_for(route: Route) -> None:
    schemes = {
        "rootKey": Credential.ROOT_KEY,
        "additionalKey": Credential.ADDITIONAL_KEY,
        "publicToken": Credential.PUBLIC_TOKEN,
    }
    assert schemes.keys() | data_plane.SCHEMES.keys() == DOCUMENT["components"]["securitySchemes"].keys()
    shown = {schemes[name] for choice in operation(route)["security"] for name in choice}
    asked = {kind for line in route.expand() if line.access is not None for kind in line.access.credentials}
    assert shown == asked
    assert {"401", "403"} <= operation(route)["responses"].keys() or not asked


@each_route
def test_what_has_a_body_describes_it_with_an_example_that_works(route: Route) -> None:
    body = operation(route).get("requestBody")
    assert (body is not None) == (route.cap is not None)
    if body is not None and route.decoder is not None:
        shown = body["content"]["application/json"]
        given = decode_body(json.dumps(shown["example"]).encode(), route.decoder)
        assert SCHEMAS[shown["schema"]["$ref"].rpartition("/")[2]]["required"] or not body["required"]
        for name in ("to_new_session", "to_update", "to_request", "to_outcome"):
            getattr(given, name, dict)()


def test_there_is_no_example_for_nobody() -> None:
    assert EXAMPLES.keys() == {route.body for route in ROUTES if route.body is not None}


@each_route
def test_examples_of_a_query_string_are_read(route: Route) -> None:
    if route.query is not None:
        examples = {each.name: shown_in_url(each.example) for each in route.parameters if each.example is not None}
        route.query(examples, CONTEXT)


@each_route
def test_the_members_of_a_query_string_are_those_that_are_read(route: Route) -> None:
    if route.query is None:
        assert route.parameters == ()
    else:
        asked = Noted()
        route.query(cast("Query", asked), CONTEXT)
        assert asked.names == {each.name for each in route.parameters}


def test_every_code_that_an_error_has_is_listed_and_described_where_its_status_is() -> None:
    assert set(SCHEMAS["Problem"]["properties"]["code"]["enum"]) == {answer.code for answer in TABLE.values()}
    for name, answer in DOCUMENT["components"]["responses"].items():
        status = int(name.removeprefix("Problem"))
        codes = {each.code for each in (*TABLE.values(), INTERNAL) if each.status == status}
        assert set(re.findall(r"`(\w+)`", answer["description"])) == codes


def test_the_examples_of_the_data_plane_are_read() -> None:
    read, append = (data_plane.PATHS[RECORDS][method] for method in ("get", "post"))
    example = append["requestBody"]["content"]["application/json"]["example"]
    assert decode_append_input(json.dumps(example).encode(), as_base64=False).records
    given = [each for each in read["parameters"] if each["in"] == "query"]
    assert {each["name"] for each in given} == {field.name for field in attrs.fields(ReadQuery)}
    text = "&".join(f"{each['name']}={str(each['example']).lower()}" for each in given if "example" in each)
    assert ReadQuery.parse(text).count == 10


@attrs.define
class Noted:
    """A query string with nothing in it, which notes what it is asked for."""

    names: set[str] = attrs.field(factory=set)

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return default


CLOCK = ManualClock()


@attrs.frozen
class Clocked:
    clock: ManualClock = CLOCK


@attrs.frozen
class FakeContext:
    """As much of the context as reading a query needs: the time."""

    sessions: Clocked = Clocked()


CONTEXT = cast("Context", FakeContext())


def shown_in_url(example: Any) -> str:
    return ",".join(example) if isinstance(example, list) else str(example)


# --- What the document says of a number or a text is where it is refused ----------------------------------

GOOD = {"type": "t", "taskIdentifier": "t", "triggerConfig": {"basePayload": {}}}


def refused(kind: type[msgspec.Struct], body: Mapping[str, Any]) -> bool:
    """Tell whether *body* is refused for what it says."""
    try:
        given: Any = decode_body(json.dumps(body).encode(), msgspec.json.Decoder(kind))
        for name in ("to_new_session", "to_update", "to_request", "to_outcome"):
            getattr(given, name, dict)()
        _ = getattr(given, "number", None)
    except InvalidError:
        return True
    return False


def edges(schema: Mapping[str, Any]) -> Iterator[tuple[Any, bool]]:
    """Yield values at the edges of what *schema* allows, and whether it does."""
    if "type" not in schema:
        for choice in schema.get("anyOf", ()):
            yield from edges(choice)
    elif "minimum" in schema:
        yield from ((schema["minimum"], True), (schema["maximum"], True))
        yield from ((schema["minimum"] - 1, False), (schema["maximum"] + 1, False))
    elif "maxLength" in schema:
        yield from (("x" * schema["maxLength"], True), ("x" * (schema["maxLength"] + 1), False), ("a\x00", False))
        yield ("x" * (schema["minLength"] - 1), False) if schema["minLength"] else ("", True)
    elif "maxItems" in schema:
        yield from ((["x"] * schema["maxItems"], True), (["x"] * (schema["maxItems"] + 1), False))
    elif schema["type"] == "null":
        yield (None, True)


TRIGGER = SCHEMAS["CreateSession"]["properties"]["triggerConfig"]["properties"]


@pytest.mark.parametrize("name", sorted(TRIGGER))
def test_what_a_trigger_config_may_be_is_described_exactly(name: str) -> None:
    for value, is_allowed in edges(TRIGGER[name]):
        if name == "ttl" and isinstance(value, int) and value > MAX_DURATION_SECONDS:
            continue  # any number of seconds will do, and no more than JavaScript can count to is promised
        members = {"basePayload": {}, name: value}
        if is_allowed:
            assert TriggerConfig(members).members[name] == value
        else:
            with pytest.raises(InvalidError):
                TriggerConfig(members)


BODIES: list[tuple[type[msgspec.Struct], dict[str, Any], tuple[str, ...]]] = [
    (CreateSession, GOOD, ("externalId",)),
    (CreateWait, {"session": "x", "io": "in"}, ("session", "idempotencyKey")),
    (StartAttempt, {"attempt": 1}, ("attempt",)),
    (CompleteAttempt, {"status": "CRASHED"}, ("lastSeqNum", "error")),
]


@pytest.mark.parametrize(
    ("kind", "good", "name"),
    [(kind, good, name) for kind, good, names in BODIES for name in names],
    ids=lambda value: getattr(value, "__name__", None) or (value if isinstance(value, str) else "good"),
)
def test_what_a_member_of_a_body_may_be_is_described_exactly(
    kind: type[msgspec.Struct], good: dict[str, Any], name: str
) -> None:
    found = list(edges(SCHEMAS[kind.__name__]["properties"][name]))
    assert found
    for value, is_allowed in found:
        assert refused(kind, {**good, name: value}) is not is_allowed, value
