"""What a server says when its engine is away, slow or well: each failure once, and no secret."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from harness.client import Client
from harness.receiver import RECEIVER, SECRET
from harness.server import KEY, ServerProcess

pytestmark = pytest.mark.slow

NO_ANSWER = "engine gave no answer"


def serve(data: Path, url: str) -> ServerProcess:
    """A server that tells everything it ever tells, and hands its runs to *url*."""
    settings = {
        "SESSIONS_DISPATCHER": "webhook",
        "SESSIONS_WEBHOOK_URL": url,
        "SESSIONS_WEBHOOK_SECRET": SECRET,
        "SESSIONS_LOG_LEVEL": "DEBUG",
    }
    return ServerProcess(data, environment=settings)


@pytest.fixture
async def http() -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


def lines_with(server: ServerProcess, text: str) -> list[str]:
    return [line for line in server.output if text in line]


def said_secrets(server: ServerProcess) -> list[str]:
    """What the server has said that nobody may read: the secret, passwords, payloads and tokens."""
    secrets = (SECRET.removeprefix("whsec_"), "hunter", "eyJ")
    return [line for line in server.output if any(secret in line for secret in secrets)]


async def test_an_engine_that_is_away_is_told_of_at_each_try_and_not_for_each_run(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens, so nobody is there
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with serve(tmp_path, f"http://user:hunter2@{address}/runs?key=hunter3") as server:
            client = Client(http, server.address, KEY)
            for number in range(10):
                config = {"basePayload": {"password": "hunter4"}}
                assert (await client.create(f"chat-{number}", task="away", triggerConfig=config)).status == 201
                assert (await client.say(f"chat-{number}", "hunter5")).status == 200
            with anyio.fail_after(60):
                while len(lines_with(server, NO_ANSWER)) < 3:
                    await anyio.sleep(0.05)
            run = (await client.call("GET", "/api/v1/sessions/chat-0")).body["currentRunId"]
            assert (await client.call("GET", f"/api/v1/runs/{run}")).body["status"] == "PENDING"
    failures = lines_with(server, "The engine behind webhook_url is unavailable")
    tries = len(lines_with(server, NO_ANSWER))
    assert len(failures) <= tries < 10
    assert said_secrets(server) == []


async def test_nothing_of_a_run_request_is_in_the_log(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    engine = RECEIVER.get()
    for what, value in (("forget", None), ("misbehave", [500, 401])):
        async with http.post(f"{engine}/{what}", json=value) as response:
            assert response.status == 200
    with serve(tmp_path, f"{engine}/runs?key=hunter3") as server:
        client = Client(http, server.address, KEY)
        await client.create("chat", task="there", triggerConfig={"basePayload": {"password": "hunter4"}})
        with anyio.fail_after(60):
            while not (requests := await taken_by(http, engine)):
                await anyio.sleep(0.05)
        data = requests[0]["body"]["data"]
        assert data["payload"]["password"] == "hunter4"
        worker = Client(http, server.address, data["token"])
        path = f"/engine/v1/runs/{data['runId']}"
        assert (await worker.call("POST", f"{path}/attempts/start", {"attempt": data["attempt"]})).status == 200
        error = {"status": "COMPLETED_WITH_ERRORS", "error": "out of ideas"}
        assert (await worker.call("POST", f"{path}/attempts/complete", error, X_Session_Epoch="1")).status == 200
    assert [line.split("status=")[1] for line in lines_with(server, "engine refused")] == ["500", "401"]
    assert said_secrets(server) == []


async def taken_by(http: aiohttp.ClientSession, engine: str) -> list[dict[str, Any]]:
    """Return the requests that an engine has taken."""
    async with http.get(f"{engine}/requests") as response:
        return list(await response.json())
