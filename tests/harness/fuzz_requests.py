"""Requests made from the OpenAPI document by schemathesis: what it describes, what it excludes, and the edges between.

They are made once and sent to as many servers as one likes. Where the document's examples stand for things that only one
server has (a session, its run, a waitpoint), :class:`Things` puts in that server's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import attrs
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import APIOperation, BaseSchema, Case, GenerationMode

from sessions_server import parameters
from sessions_server.data_plane.access import BASIN
from sessions_server.data_plane.document import EXAMPLE_BASIN, EXAMPLE_STREAM

AnyOperation = APIOperation[Any, Any, Any, Any]
AnyCase = Case[AnyOperation]
_BASE: Final = "http://server"
_NOT_SENT: Final = {"authorization", "connection", "content-length", "user-agent", "x-schemathesis-testcaseid"}
"""Headers of the tool and of its client; whoever sends the request brings a credential of its own."""
_WAIT: Final = re.compile(r"\bwait=[1-9]\d*")
"""What a server may rightly take a minute to answer."""
_EXAMPLES: Final = {name: str(each.example) for name, each in parameters.PATH.items()} | {"stream": EXAMPLE_STREAM}


@attrs.frozen(kw_only=True)
class Things:
    """What there is on one server, by the names that paths give it."""

    session: str
    run: str
    waitpoint: str
    basin: str

    @property
    def stream(self) -> str:
        """The session's ``in``."""
        return f"sessions/{quote(self.session, safe='-_.~:@')}/in"

    def fill(self, name: str, value: str, *, insist: bool) -> str:
        """Return the value of a path's parameter: ours in place of the example, or, to *insist*, of whatever was made up."""
        is_ours = name != "io" and (insist or unquote(value) == _EXAMPLES[name])
        return quote(getattr(self, name), safe="") if is_ours else value

    def fill_headers(self, headers: Mapping[str, str], *, insist: bool) -> dict[str, str]:
        """Do the same for what headers name."""
        return {
            name: self.basin if value == EXAMPLE_BASIN or (insist and name == BASIN) else value
            for name, value in headers.items()
        }

    def fill_body(self, body: bytes | None) -> bytes | None:
        """Do the same for what a body names."""
        if body is None:
            return None
        for name in ("session", "run"):
            body = body.replace(json.dumps(_EXAMPLES[name]).encode(), json.dumps(getattr(self, name)).encode())
        return body


@attrs.frozen(kw_only=True)
class Made:
    """A request.

    Attributes:
        path: The values of the path's parameters, percent-encoded.
    """

    operation: AnyOperation = attrs.field(repr=False)
    path: Mapping[str, str]
    query: str
    headers: Mapping[str, str]
    body: bytes | None

    @property
    def route(self) -> str:
        """Method and path as the document has them."""
        return str(self.operation.label)

    @property
    def method(self) -> str:
        """In capitals."""
        return str(self.operation.method.upper())

    def target(self, things: Things, *, insist: bool) -> str:
        """Return what stands in the request line."""
        filled = {name: things.fill(name, value, insist=insist) for name, value in self.path.items()}
        path = str(self.operation.path).format(**filled)
        return f"{path}?{self.query}" if self.query else path


def make_requests(document: Mapping[str, Any], *, examples: int, edges: int, number: int) -> list[Made]:
    """Make requests to every route.

    Args:
        document: The OpenAPI document.
        examples: So many of each route that fit the document, and as many that do not.
        edges: So many of each route at the edges of what it says, at most.
        number: Seeds chance.
    """
    schema = schemathesis.openapi.from_dict(dict(document))
    operations = [schema[path][method.upper()] for path, methods in document["paths"].items() for method in methods]
    return [made for operation in operations for made in _of(schema, operation, examples, edges, number)]


def _of(schema: BaseSchema, operation: AnyOperation, examples: int, edges: int, number: int) -> Iterator[Made]:
    for mode in GenerationMode if _can_be_wrong(operation) else (GenerationMode.POSITIVE,):
        yield from map(_made, _drawn(operation, mode, examples, number))
    config = schema.config.generation_for(operation=operation)
    every = list(schema.iter_coverage_cases(operation, generation_modes=list(GenerationMode), generation_config=config))
    mine = [case for case in every if case.method.upper() == operation.method.upper()]
    yield from map(_made, mine[:: max(1, -(-len(mine) // edges))] if edges else [])


def _can_be_wrong(operation: AnyOperation) -> bool:
    """Tell whether the document excludes anything that can be sent at all: a header may be any text."""
    return bool(operation.path_parameters.items or operation.query.items or operation.body.items)


def _drawn(operation: AnyOperation, mode: GenerationMode, count: int, number: int) -> list[AnyCase]:
    drawn: list[AnyCase] = []

    @seed(number)
    @settings(max_examples=count, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def draw(case: AnyCase) -> None:
        drawn.append(case)

    draw()
    return drawn


def _made(case: AnyCase) -> Made:
    given_kwargs = case.as_transport_kwargs(base_url=_BASE)
    prepared = requests.Request(**given_kwargs).prepare()
    body = prepared.body
    assert body is None or isinstance(body, str | bytes)
    return Made(
        operation=case.operation,
        path=_path_of(case),
        query=_WAIT.sub("wait=0", urlsplit(str(prepared.url)).query),
        headers={name: str(value) for name, value in prepared.headers.items() if name.lower() not in _NOT_SENT},
        body=body.encode() if isinstance(body, str) else body,
    )


def _path_of(case: AnyCase) -> dict[str, str]:
    """Return the values as they are sent: the tool encodes what it makes up, but not the examples."""
    return {name: quote(str(value), safe="%") for name, value in case.path_parameters.items()}
