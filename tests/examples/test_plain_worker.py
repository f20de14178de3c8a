"""A worker without our library, which a real server hands its runs to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import attrs
import pytest

from harness.backends import SHARED, environment_of, opened_backends
from harness.client import Client, delta_of, is_control
from harness.desk import EXAMPLES
from harness.receiver import SECRET
from harness.server import KEY, ServerProcess
from sessions_adapters.webhook.signing import parse_secret, sign

pytestmark = pytest.mark.slow

STALL_SECONDS = 3
LONG_STALL_SECONDS = 30
"""Longer than a server takes to start again."""


@attrs.define(eq=False)
class WorkerProcess(ServerProcess):
    """``examples/plain_worker.py`` in a process of its own."""

    server: str = ""

    def command(self) -> list[str]:
        script = str(EXAMPLES / "plain_worker.py")
        return [sys.executable, "-u", script, "--port", str(self.port), "--server", self.server]


@attrs.define(eq=False)
class Place:
    """A server, and the worker that carries out its runs."""

    server: ServerProcess
    worker: WorkerProcess


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def opened_place(profile: str, data: Path, stall: int) -> Generator[Place]:
    port = free_port()
    settings = {
        "SESSIONS_DISPATCHER": "webhook",
        "SESSIONS_WEBHOOK_URL": f"http://127.0.0.1:{port}/runs",
        "SESSIONS_WEBHOOK_SECRET": SECRET,
        "SESSIONS_STALL": str(stall),
    }
    with opened_backends(profile, data) as backends:
        chosen = {name: value for name, value in environment_of(backends).items() if name not in settings}
        with ServerProcess(data, environment=chosen | settings) as server:
            worker = WorkerProcess(data, port=port, server=server.address, environment=settings)
            with worker:
                yield Place(server, worker)


@pytest.fixture
def stall() -> int:
    """For how many seconds a worker may be silent."""
    return STALL_SECONDS


@pytest.fixture(params=["embedded", SHARED[0]])
def place(request: pytest.FixtureRequest, tmp_path: Path, stall: int) -> Generator[Place]:
    with opened_place(request.param, tmp_path, stall) as place:
        yield place


@pytest.fixture
async def client(place: Place) -> AsyncGenerator[Client]:
    async with aiohttp.ClientSession() as http:
        yield Client(http, place.server.address, KEY)


async def until_text(client: Client, name: str, wanted: str) -> None:
    """Wait until *wanted* has been written on ``out``."""
    text = ""
    with anyio.fail_after(30):
        async with client.subscribe(name) as (_, frames):
            async for frame in frames:
                text += "".join(map(delta_of, frame.records))
                if wanted in text:
                    return
    raise AssertionError(text)


async def current_run(client: Client, name: str) -> dict[str, Any]:
    run = (await client.call("GET", f"/api/v1/sessions/{name}")).body["currentRunId"]
    body: dict[str, Any] = (await client.call("GET", f"/api/v1/runs/{run}")).body
    return body


async def test_messages_are_answered_turn_by_turn_by_one_run(client: Client) -> None:
    await client.create("chat", task="anything")
    end = None
    for said in ("good morning", "good night"):
        await client.say("chat", said)
        text, end = await client.turn("chat", after=end)
        assert text == f"a plain worker heard: {said} "
    run = await current_run(client, "chat")
    assert (run["status"], run["reason"], run["attempt"]) == ("EXECUTING", "initial", 1)
    (first, _) = [r for r in await client.records("chat", "out") if is_control(r, "turn-complete")]
    assert "public-access-token" in dict(first["headers"])


async def test_after_a_kill_9_of_the_worker_the_message_is_answered(client: Client, place: Place) -> None:
    await client.create("chat", task="anything")
    await client.say("chat", "slow and steady wins the race after all")
    await until_text(client, "chat", "steady")
    dead = await current_run(client, "chat")
    place.worker.kill()
    place.worker.start()
    text, _ = await client.turn("chat")
    assert text.endswith("a plain worker heard: slow and steady wins the race after all ")
    heir = await current_run(client, "chat")
    assert heir["previousRunId"] == dead["id"]
    ended = (await client.call("GET", f"/api/v1/runs/{dead['id']}")).body
    assert (ended["status"], ended["error"]) == ("CRASHED", "no heartbeat")


async def test_a_message_that_comes_while_no_worker_is_there_is_answered_by_the_next(
    client: Client, place: Place
) -> None:
    place.worker.kill()
    await client.create("chat", task="anything")
    await client.say("chat", "anybody there?")
    place.worker.start()
    text, _ = await client.turn("chat")
    assert text == "a plain worker heard: anybody there? "


async def test_a_worker_that_slept_through_its_replacement_is_refused_and_stops(client: Client, place: Place) -> None:
    await client.create("chat", task="anything")
    await client.say("chat", "slow " + "and steady " * 20)
    await until_text(client, "chat", "steady")
    os.kill(place.worker.pid, signal.SIGSTOP)
    try:
        run = await current_run(client, "chat")
        path = f"/engine/v1/runs/{run['id']}"
        begun = await client.call("POST", f"{path}/attempts/start", {"attempt": run["attempt"] + 1})
        assert begun.body["epoch"] == run["epoch"] + 1
        body = {"records": [{"data": {"type": "text-delta", "id": "x", "delta": "SUCCESSOR"}}]}
        mine = await client.call("POST", f"{path}/out/append", body, X_Session_Epoch=str(begun.body["epoch"]))
        assert mine.status == 200
    finally:
        os.kill(place.worker.pid, signal.SIGCONT)
    with anyio.fail_after(30):
        while not any(line == f"{run['id']} is over: stale_run" for line in place.worker.output):
            await asyncio.sleep(0.05)
    deltas = [json.dumps(record) for record in await client.records("chat", "out")]
    assert "SUCCESSOR" in deltas[-1], "nothing of the stale attempt comes after it"


@pytest.mark.parametrize("stall", [LONG_STALL_SECONDS])
async def test_a_server_that_is_killed_finds_its_worker_still_at_work(client: Client, place: Place) -> None:
    await client.create("chat", task="anything")
    await client.say("chat", "slow and steady wins")
    await until_text(client, "chat", "slow")
    run = await current_run(client, "chat")
    place.server.kill()
    place.server.start()
    text, _ = await client.turn("chat")
    assert text == "a plain worker heard: slow and steady wins "
    again = await current_run(client, "chat")
    assert (again["id"], again["status"]) == (run["id"], "EXECUTING")


async def test_what_the_server_has_not_signed_just_now_is_refused(client: Client, place: Place) -> None:
    body = json.dumps({"type": "run.requested", "data": {"runId": "run_x", "attempt": 1, "token": "x"}}).encode()
    now = int(time.time())
    good = signed("m", now, body)
    forged = [
        {},
        {**good, "webhook-id": "another"},
        {**good, "webhook-timestamp": str(now + 1)},
        {**good, "webhook-signature": "v1,x"},
        {**good, "webhook-signature": good["webhook-signature"].replace("v1,", "v2,")},
        {**good, "webhook-signature": "v1,\u00e9"},
        {**good, "webhook-id": "\u00e9"},
        *({**good, "webhook-timestamp": timestamp} for timestamp in ("\u00b2", "", "-1", "9" * 5000, "1e9")),
        signed("m", now - 301, body),
        signed("m", now + 302, body),
        signed("m", now, body + b" "),
    ]
    for headers in forged:
        async with client.http.post(f"{place.worker.address}/runs", data=body, headers=headers) as response:
            assert response.status == 401, headers


def signed(message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    signature = sign(message_id, timestamp, body, [parse_secret(SECRET)])
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


async def test_a_run_that_is_cancelled_ends_and_its_message_is_answered_by_another(
    client: Client, place: Place
) -> None:
    await client.create("chat", task="anything")
    await client.say("chat", "slow and steady wins the race")
    await until_text(client, "chat", "slow")
    run = await current_run(client, "chat")
    body = json.dumps({"type": "run.canceled", "data": {"runId": run["id"]}}).encode()
    headers = signed(f"{run['id']}-cancel", int(time.time()), body)
    async with client.http.post(f"{place.worker.address}/runs", data=body, headers=headers) as response:
        assert response.status == 202
    text, _ = await client.turn("chat")
    assert text.endswith("a plain worker heard: slow and steady wins the race ")
    assert (await client.call("GET", f"/api/v1/runs/{run['id']}")).body["status"] == "CANCELED"
    assert (await current_run(client, "chat"))["previousRunId"] == run["id"]


async def test_a_worker_that_stops_leaves_what_it_was_doing_to_the_next(client: Client, place: Place) -> None:
    await client.create("chat", task="anything")
    await client.say("chat", "slow and steady wins the race")
    await until_text(client, "chat", "slow")
    assert await anyio.to_thread.run_sync(place.worker.stop) == 0
    place.worker.start()
    text, _ = await client.turn("chat")
    assert text.endswith("a plain worker heard: slow and steady wins the race ")
