"""Requests made from the OpenAPI document, good, bad and on the edge, to a real server on every profile.

The long form: ``PYTHONPATH=tests python -m harness.fuzz --profile postgres --examples 500``.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import aiohttp
import anyio.to_thread
import pytest

from harness.answers import problems_of
from harness.backends import ALL, environment_of, opened_backends
from harness.client import Client
from harness.fuzz_judge import Judge
from harness.fuzz_play import MOST_MEMORY, UNLIMITED, Player, memory, peak_memory
from harness.fuzz_requests import Made, make_requests
from harness.server import KEY, ServerProcess
from sessions_server.openapi import make_document
from sessions_server.table import ROUTES

EXAMPLES, EDGES = 4, 10

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(make_document(ROUTES))
    return document


@pytest.fixture(scope="module")
def made(document: dict[str, Any]) -> list[Made]:
    """The requests, which are the same for every profile."""
    return make_requests(document, examples=EXAMPLES, edges=EDGES, number=1)


@pytest.fixture(params=ALL)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[ServerProcess]:
    """A server over the profile under test."""
    with (
        opened_backends(request.param, tmp_path / "data") as backends,
        ServerProcess(tmp_path / "data", environment=environment_of(backends) | UNLIMITED) as process,
    ):
        yield process


def test_every_route_is_tried(made: list[Made]) -> None:
    assert {each.route for each in made} >= {f"{route.method} {route.path}" for route in ROUTES}


async def test_every_answer_is_one_that_the_document_lists(
    server: ServerProcess, document: dict[str, Any], made: list[Made]
) -> None:
    player = Player(server.address, KEY, Judge(document))
    before = memory(server.pid)
    findings = await anyio.to_thread.run_sync(player.play, made)
    print(*findings.lines(), sep="\n")
    assert findings.problems == []
    assert peak_memory(server.pid) - before < MOST_MEMORY
    assert [line for line in server.output if "Traceback" in line or "ERROR" in line] == []
    await check_that_it_still_talks(server)


async def check_that_it_still_talks(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as http:
        client = Client(http, server.address, KEY)
        await client.create("afterwards")
        said = (await client.say("afterwards", "are you well?")).body["seq"]
        assert await problems_of(client, "afterwards", {said: "are you well?"}) == []


def test_the_document_is_the_one_that_the_server_shows(tmp_path: Path, document: dict[str, Any]) -> None:
    with ServerProcess(tmp_path / "data") as server:
        connection = HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", "/openapi.json")
        assert json.loads(connection.getresponse().read()) == document
        connection.close()
