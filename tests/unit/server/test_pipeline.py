"""Requests on their way to a handler: clients that leave, one-time tokens, tokens that end with their creator's."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jwt
import pytest
from aiohttp import StreamReader, web
from aiohttp.test_utils import make_mocked_request

from sessions_adapters.profiles import open_sessions
from sessions_core.domain.channel import UPGRADE_REQUIRED, Io
from sessions_core.domain.environment import Environment, EnvironmentType, RootKey
from sessions_core.domain.guard import Guard
from sessions_core.domain.ids import EnvironmentId, OrganizationId, ProjectId, RunId
from sessions_core.facade import Sessions
from sessions_server.app import HttpServer, build_server
from sessions_server.auth import tokens
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


def ask(
    server: HttpServer, path: str, body: Any, *, credential: str = KEY, method: str = "POST"
) -> asyncio.Task[web.StreamResponse]:
    """Begin a request; cancelling the task is what aiohttp does when the client leaves."""
    payload = StreamReader(Mock(_reading_paused=False), 2**16, loop=asyncio.get_running_loop())
    payload.feed_data(body if isinstance(body, bytes) else json.dumps(body).encode())
    payload.feed_eof()
    request = make_mocked_request(method, path, {"Authorization": f"Bearer {credential}"}, payload=payload)
    return asyncio.create_task(server.handle(request))


def json_of(response: web.StreamResponse) -> Any:
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


def token(server: HttpServer, scopes: list[str], *, seconds: int = 600, **more: Any) -> str:
    now = int(server.context.sessions.clock.now().timestamp())
    claims = {"sub": ONE, "pub": True, "scopes": scopes, "iat": now, "exp": now + seconds, **more}
    return tokens.sign(claims, RootKey(value=KEY))


async def create(server: HttpServer, name: str) -> str:
    body = {
        "type": "chat.agent",
        "externalId": name,
        "taskIdentifier": "nobodys",
        "triggerConfig": {"basePayload": {}},
    }
    return str(json_of(await ask(server, "/api/v1/sessions", body))["runId"])


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


async def test_a_reader_that_leaves_before_its_stream_begins_is_no_failure(server: HttpServer) -> None:
    await create(server, "chat-1")
    transport = Mock(is_closing=lambda: True)
    writer = Mock(write_headers=Mock(side_effect=ConnectionResetError("Cannot write to closing transport")))
    request = make_mocked_request(
        "GET",
        "/realtime/v1/sessions/chat-1/out",
        {"Authorization": f"Bearer {KEY}"},
        transport=transport,
        writer=writer,
    )
    response = await server.handle(request)
    assert (response.status, response.prepared) == (499, False)
    assert server.context.metrics.render().count(b'status="499"') == 1


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


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"\xff", 400),
        (b"x" * 1_048_577, 413),
        (b"x" * 1_048_570, 413),
        (b'{"payload": {"actionSource"' + b"[" * 100_000, 200),
    ],
    ids=["no UTF-8", "over the cap", "over the log's limit", "odd but a text"],
)
async def test_a_one_time_token_is_good_until_a_record_is_acceptable(
    server: HttpServer, body: bytes, status: int
) -> None:
    await create(server, "chat-1")
    once = token(server, ["write:sessions:chat-1"], otu=True)
    path = "/realtime/v1/sessions/chat-1/in/append"
    assert (await ask(server, path, body, credential=once)).status == status
    assert (await ask(server, path, b"second", credential=once)).status == (401 if status == 200 else 200)
    assert (await ask(server, path, b"third", credential=once)).status == 401


async def test_a_one_time_token_is_used_up_by_a_change(server: HttpServer) -> None:
    await create(server, "chat-1")
    once = token(server, ["admin:sessions:chat-1"], otu=True)
    tagged = [
        (await ask(server, "/api/v1/sessions/chat-1", {"tags": [tag]}, credential=once, method="PATCH")).status
        for tag in "ab"
    ]
    assert tagged == [200, 401]
    assert (await server.context.sessions.sessions.get(ONE, "chat-1")).tags == ("a",)


async def test_a_sessions_token_ends_with_the_token_that_created_it(server: HttpServer) -> None:
    body = {"type": "t", "taskIdentifier": "x", "triggerConfig": {"basePayload": {}}}
    for credential, longest in ((token(server, ["write:tasks:x"], seconds=300), 300), (KEY, 3600)):
        created = json_of(await ask(server, "/api/v1/sessions", body, credential=credential))
        claims = jwt.decode(created["publicAccessToken"], options={"verify_signature": False})
        now = server.context.sessions.clock.now().timestamp()
        assert longest - 60 < claims["exp"] - now <= longest


async def test_of_a_sessions_runs_the_newest_are_listed(server: HttpServer) -> None:
    first = await create(server, "chat-1")
    path = "/api/v1/sessions/chat-1"
    await ask(server, f"{path}/end-and-continue", {"callingRunId": first, "reason": "upgrade"})
    both = json_of(await ask(server, f"{path}/runs", b"", method="GET"))["data"]
    assert [run["reason"] for run in both] == ["upgrade", "initial"]
    assert json_of(await ask(server, f"{path}/runs?limit=1", b"", method="GET"))["data"] == both[:1]
    for limit in ("0", "101", "x"):
        assert json_of(await ask(server, f"{path}/runs?limit={limit}", b"", method="GET"))["field"] == "limit"
