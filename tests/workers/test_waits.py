"""Waits that outlive the process that made them, and wake-ups from one process to another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from harness.backends import SHARED, environment_of, opened_backends
from harness.client import Client
from harness.server import KEY, ServerProcess

pytestmark = [pytest.mark.kill, pytest.mark.timeout(90)]


@pytest.fixture(params=SHARED)
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Two servers that carry nothing out, so that a run stays as it is."""
    with opened_backends(request.param, tmp_path) as backends:
        environment = environment_of(backends)
        first, second = (ServerProcess(tmp_path, agents="none", environment=environment) for _ in range(2))
        with first, second:
            yield first, second


@pytest.fixture
async def clients(servers: tuple[ServerProcess, ServerProcess]) -> AsyncIterator[tuple[Client, Client]]:
    async with aiohttp.ClientSession() as http:
        yield Client(http, servers[0].address, KEY), Client(http, servers[1].address, KEY)


async def wait_of(client: Client, name: str, **more: Any) -> str:
    """Let a session's run wait for its next input; return the waitpoint."""
    run = (await client.create(name)).body["runId"]
    answer = await client.call(
        "POST", f"/api/v1/runs/{run}/session-streams/wait", {"session": name, "io": "in", "lastSeqNum": -1} | more
    )
    assert answer.status == 200, answer
    return str(answer.body["waitpointId"])


async def ended(client: Client, waitpoint: str, seconds: int = 20) -> Any:
    answer = await client.call("GET", f"/api/v1/waitpoints/tokens/{waitpoint}", Timeout_Seconds=str(seconds))
    assert answer.status == 200, answer
    return answer.body


async def test_a_timeout_fires_although_its_creator_died(
    servers: tuple[ServerProcess, ServerProcess], clients: tuple[Client, Client]
) -> None:
    waitpoint = await wait_of(clients[0], "timed", timeout="1s")
    servers[0].kill()
    # The second one has to find out that the first does not lead any more, and then takes part in its duties.
    assert (await ended(clients[1], waitpoint))["status"] == "TIMED_OUT"


async def test_who_waits_in_one_process_is_woken_by_an_append_in_another(clients: tuple[Client, Client]) -> None:
    first, second = clients
    for number in range(5):
        waitpoint = await wait_of(first, f"woken-{number}")
        polling = asyncio.create_task(ended(first, waitpoint))
        await asyncio.sleep(0.05)  # it may or may not have begun to wait: the outcome is the same
        await second.append(f"woken-{number}", "hello")
        async with asyncio.timeout(5):
            assert (await polling)["output"] == "hello"


async def test_a_wait_that_was_made_by_a_dead_process_is_woken(
    servers: tuple[ServerProcess, ServerProcess], clients: tuple[Client, Client]
) -> None:
    waitpoint = await wait_of(clients[0], "orphan")
    servers[0].kill()
    polling = asyncio.create_task(ended(clients[1], waitpoint))
    await clients[1].append("orphan", "hello")
    assert (await polling)["output"] == "hello"
