"""A client that leaves: what it has set off is carried out whole, and what fails then is logged."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import StreamReader, web
from aiohttp.test_utils import make_mocked_request

from sessions_adapters.profiles import open_sessions
from sessions_core.domain.channel import UPGRADE_REQUIRED, Io
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.guard import Guard
from sessions_core.domain.ids import EnvironmentId, OrganizationId, ProjectId, RunId
from sessions_core.facade import Sessions
from sessions_server.app import HttpServer, build_server
from sessions_server.config import Config

KEY = "tr_dev_" + "a" * 24
ONE = EnvironmentId("env_one")
TRIES = 60


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[HttpServer]:
    async with open_sessions("embedded", data=tmp_path) as sessions:
        environment = Environment(
            id=ONE,
            organization_id=OrganizationId("o"),
            project_id=ProjectId("p"),
            type=EnvironmentType.DEVELOPMENT,
        )
        await sessions.environments.create(environment, KEY)
        yield build_server(sessions, Config())


def ask(server: HttpServer, path: str, body: Any) -> asyncio.Task[web.StreamResponse]:
    """Begin a POST; cancelling the task is what aiohttp does when the client leaves."""
    payload = StreamReader(Mock(_reading_paused=False), 2**16, loop=asyncio.get_running_loop())
    payload.feed_data(json.dumps(body).encode())
    payload.feed_eof()
    request = make_mocked_request("POST", path, {"Authorization": f"Bearer {KEY}"}, payload=payload)
    return asyncio.create_task(server.handle(request))


async def create(server: HttpServer, name: str) -> str:
    body = {
        "type": "chat.agent",
        "externalId": name,
        "taskIdentifier": "nobodys",
        "triggerConfig": {"basePayload": {}},
    }
    response = await ask(server, "/api/v1/sessions", body)
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    return str(json.loads(response.body)["runId"])


async def begin(sessions: Sessions, name: str, run: str) -> None:
    """Take the right to write, as whoever carries the run out does."""
    begun = await sessions.ports.runs.begin(RunId(run), 1)
    assert begun is not None
    out = (await sessions.sessions.get(ONE, name)).channel(Io.OUT)
    tail = await sessions.ports.log.tail(out)
    assert (await sessions.ports.log.set_guard(out, Guard.live(begun.epoch), expect=tail.guard)).done


async def test_a_hand_over_whose_client_leaves_is_announced_if_it_is_made(server: HttpServer) -> None:
    sessions = server.context.sessions
    made = 0
    for number in range(TRIES):
        name = f"chat-{number}"
        run = await create(server, name)
        await begin(sessions, name, run)
        asking = ask(server, f"/api/v1/sessions/{name}/end-and-continue", {"callingRunId": run, "reason": "upgrade"})
        await asyncio.sleep(number / TRIES * 0.006)
        asking.cancel()
        await asyncio.wait([asking])
        await server.close()
        session = await sessions.sessions.get(ONE, name)
        batch = await sessions.channels.records(session.channel(Io.OUT), 0)
        announced = [record for record in batch.records if record.control == UPGRADE_REQUIRED]
        runs = await sessions.sessions.list_runs(ONE, name)
        assert len(announced) == len(runs) - 1, number
        made += len(announced)
    assert made, "no hand-over was made: the test has tried nothing"


async def test_a_change_that_fails_after_its_client_has_left_is_logged(
    server: HttpServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def fail(*_: Any, **__: Any) -> None:
        reached.set()
        await go_on.wait()
        raise RuntimeError("the reason")

    run = await create(server, "chat-1")
    monkeypatch.setattr(type(server.context.sessions.sessions), "end_and_continue", fail)
    asking = ask(server, "/api/v1/sessions/chat-1/end-and-continue", {"callingRunId": run, "reason": "upgrade"})
    await reached.wait()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    go_on.set()
    await server.close()
    [line] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line.name == "sessions.server"
    assert line.exc_info is not None
    assert str(line.exc_info[1]) == "the reason"


async def test_a_change_that_does_not_end_is_cut_off(
    server: HttpServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()

    async def hang(*_: Any, **__: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    run = await create(server, "chat-1")
    monkeypatch.setattr(type(server.context.sessions.sessions), "end_and_continue", hang)
    monkeypatch.setattr("sessions_server.app.SHUTDOWN_SECONDS", 0.05)
    asking = ask(server, "/api/v1/sessions/chat-1/end-and-continue", {"callingRunId": run, "reason": "upgrade"})
    await reached.wait()
    asking.cancel()
    await asyncio.wait([asking])
    await server.close()
    assert "changes were cut off" in caplog.messages
