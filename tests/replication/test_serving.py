"""``sessions serve`` that replicates and lists from ClickHouse: what its clients see, and how soon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from time import monotonic
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import pytest

from harness.client import Client
from harness.replication import INSERT, Stage
from harness.server import KEY, ServerProcess

pytestmark = [pytest.mark.needs_postgres, pytest.mark.needs_clickhouse, pytest.mark.slow, pytest.mark.timeout(180)]

FRESH_SECONDS = 2.0
"""How far lists may be behind with the default settings."""
PATIENCE_SECONDS = 60
NEW = {"type": "chat.agent", "taskIdentifier": "echo", "triggerConfig": {"basePayload": {}}}


def variables(stage: Stage) -> dict[str, str]:
    """Return the settings of a server that lists from ClickHouse; of replication, only that it is wanted."""
    return {
        "SESSIONS_PROFILE": "postgres",
        "SESSIONS_DATABASE_URL": stage.postgres.url,
        "SESSIONS_CLICKHOUSE_URL": stage.sink.url,
        "SESSIONS_INDEX": "clickhouse",
        "SESSION_REPLICATION_ENABLED": "1",
    }


@pytest.fixture
def server(stage: Stage) -> Iterator[ServerProcess]:
    with ServerProcess(stage.folder / "data", environment=variables(stage)) as server:
        yield server


async def ready_of(server: ServerProcess) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http, http.get(f"{server.address}/readyz") as answer:
        body: dict[str, Any] = await answer.json()
        return {"http": answer.status} | body


async def listed(client: Client, query: str = "") -> list[str]:
    answer = await client.call("GET", f"/api/v1/sessions{query}")
    assert answer.status == 200, answer.body
    return [item["externalId"] for item in answer.body["data"]]


async def until_listed(client: Client, expected: list[str], query: str) -> float:
    """Wait until the list is as expected; return how long that took."""
    began = monotonic()
    while await listed(client, query) != expected:
        assert monotonic() - began < PATIENCE_SECONDS, f"{await listed(client, query)} is not {expected}"
        await anyio.sleep(0.02)
    return monotonic() - began


async def test_lists_follow_within_two_seconds(stage: Stage, server: ServerProcess) -> None:
    """The quickest of them: what a machine with other work does to the rest says nothing about how long rows wait."""
    await stage.until_streaming()
    took: list[float] = []
    async with aiohttp.ClientSession() as http:
        client = Client(http, server.address, KEY)
        for number in range(5):
            name = f"s{number}"
            created = await client.call("POST", "/api/v1/sessions", NEW | {"externalId": name, "tags": [name]})
            assert created.status == 201
            took.append(await until_listed(client, [name], f"?filter[tags]={name}"))
        await client.call("PATCH", "/api/v1/sessions/s1", {"tags": ["moved"]})
        took.append(await until_listed(client, ["s1"], "?filter[tags]=moved"))
        await client.call("POST", "/api/v1/sessions/s2/close", {"reason": "over"})
        assert "s2" not in await listed(client, "?filter[status]=ACTIVE"), "corrected by the store at once"
        took.append(await until_listed(client, ["s2"], "?filter[status]=CLOSED"))
    assert min(took) <= FRESH_SECONDS, took
    assert (await ready_of(server)) == {"http": 200, "status": "ready", "replication": "leader"}
    assert server.stop() == 0


async def test_a_server_whose_replication_fails_is_ready_all_the_same(stage: Stage, server: ServerProcess) -> None:
    await stage.until_streaming()
    await anyio.to_thread.run_sync(stage.sink.kill)
    try:
        async with stage.connection() as connection:
            await connection.execute(INSERT, 1, 1)
        with anyio.fail_after(PATIENCE_SECONDS):
            while (await ready_of(server))["replication"] != "failing":
                await anyio.sleep(0.02)
        assert (await ready_of(server)) == {"http": 200, "status": "ready", "replication": "failing"}
    finally:
        await anyio.to_thread.run_sync(stage.sink.start)


def diagnose(stage: Stage) -> dict[str, tuple[str, str]]:
    """Return what ``sessions doctor`` finds of replication."""
    command = [sys.executable, "-m", "sessions_server", "doctor", "--json"]
    environment = {**os.environ, **variables(stage)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    rows = [row for row in json.loads(done.stdout) if row["system"] == "replication"]
    return {row["check"]: (row["health"], row["message"]) for row in rows}


async def test_doctor_looks_at_replication(stage: Stage, server: ServerProcess) -> None:
    await stage.until_streaming()
    found = await anyio.to_thread.run_sync(diagnose, stage)
    assert found["slot"] == ("ok", "somebody streams from it")
    assert found["lag"][0] == "ok"
    assert found["backfill"][0] == "warning"
    assert found["dead letters"] == ("ok", "none")
    await anyio.to_thread.run_sync(server.stop)
    assert (await anyio.to_thread.run_sync(diagnose, stage))["slot"][0] == "warning"
