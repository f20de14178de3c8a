"""Waiting for the next record of a channel over HTTP."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import pytest

from harness.client import Answer, Client
from harness.in_process import OTHER_KEY, ROOT_KEY, Site


@pytest.fixture
async def run(client: Client) -> str:
    """A run of the session ``chat-1``."""
    run_id: str = (await client.create("chat-1")).body["runId"]
    return run_id


async def wait(client: Client, run: str, **body: Any) -> Answer:
    full = {"session": "chat-1", "io": "in", **body}
    return await client.call("POST", f"/api/v1/runs/{run}/session-streams/wait", full)


async def read(client: Client, waitpoint_id: str, **headers: str) -> Answer:
    return await client.call("GET", f"/api/v1/waitpoints/tokens/{waitpoint_id}", **headers)


async def test_a_wait_is_completed_by_the_next_record_with_its_seq(client: Client, run: str, first: int) -> None:
    await client.append("chat-1", "known")
    created = await wait(client, run, lastSeqNum=first, tags="one", timeout="1h")
    assert (created.status, created.body["isCached"]) == (200, False)
    waitpoint_id = created.body["waitpointId"]
    before = (await read(client, waitpoint_id)).body
    assert (before["status"], before["tags"], "output" in before) == ("WAITING", ["one"], False)
    assert before["timeoutAt"] is not None
    assert before["url"].endswith(f"/api/v1/waitpoints/tokens/{waitpoint_id}")
    await client.append("chat-1", '{"kind":"message"}')
    after = (await read(client, waitpoint_id)).body
    assert (after["status"], after["output"], after["outputType"], after["seq"]) == (
        "COMPLETED",
        '{"kind":"message"}',
        "application/json",
        first + 1,
    )
    assert after["outputIsError"] is False
    assert datetime.fromisoformat(after["completedAt"]) <= datetime.now(UTC)


async def test_a_wait_for_what_is_there_already_is_over_at_once(client: Client, run: str, first: int) -> None:
    await client.append("chat-1", "early")
    waitpoint_id = (await wait(client, run, lastSeqNum=-1)).body["waitpointId"]
    assert (await read(client, waitpoint_id)).body["seq"] == first


async def test_a_long_poll_returns_when_the_record_comes(client: Client, run: str) -> None:
    waitpoint_id = (await wait(client, run)).body["waitpointId"]
    polling = asyncio.create_task(read(client, waitpoint_id, Timeout_Seconds="30"))
    await asyncio.sleep(0.1)
    began = monotonic()
    await client.append("chat-1", "x")
    assert (await polling).body["status"] == "COMPLETED"
    assert monotonic() - began < 3


async def test_a_long_poll_that_ends_first_shows_it_still_waiting(client: Client, run: str) -> None:
    waitpoint_id = (await wait(client, run)).body["waitpointId"]
    answer = await read(client, waitpoint_id, Timeout_Seconds="1")
    assert (answer.status, answer.body["status"]) == (200, "WAITING")


@pytest.mark.parametrize("seconds", ["0", "601", "x"])
async def test_a_long_poll_has_the_limits_of_a_subscription(client: Client, run: str, seconds: str) -> None:
    answer = await read(client, "waitpoint_x", Timeout_Seconds=seconds)
    assert (answer.status, answer.body["field"]) == (400, "Timeout-Seconds")


async def test_a_wait_that_is_over_in_time_says_so(client: Client, run: str) -> None:
    waitpoint_id = (await wait(client, run, timeout="1s")).body["waitpointId"]
    answer = await read(client, waitpoint_id, Timeout_Seconds="20")
    assert (answer.body["status"], answer.body["outputIsError"]) == ("TIMED_OUT", True)
    assert json.loads(answer.body["output"])["code"] == "TRIGGER_WAITPOINT_TIMEOUT"


async def test_the_same_idempotency_key_gives_the_same_waitpoint(client: Client, run: str) -> None:
    first = (await wait(client, run, idempotencyKey="k", idempotencyKeyTTL="1h")).body
    again = (await wait(client, run, idempotencyKey="k", idempotencyKeyTTL="1h")).body
    assert again == {"waitpointId": first["waitpointId"], "isCached": True}
    assert (await wait(client, run, idempotencyKey="other")).body["isCached"] is False


async def test_either_id_waits_on_the_same_channel_also_before_the_session_exists(client: Client, run: str) -> None:
    session = (await client.call("GET", "/api/v1/sessions/chat-1")).body
    ids = [(await wait(client, run, session=name)).body["waitpointId"] for name in ("chat-1", session["id"], "later")]
    await client.append("chat-1", "x")
    await client.create("later")
    await client.append("later", "y")
    assert [(await read(client, waitpoint_id)).body["output"] for waitpoint_id in ids] == ["x", "x", "y"]


async def test_unknown_things_are_404(client: Client, site: Site, run: str) -> None:
    assert (await wait(client, "run_nope")).body["code"] == "run_not_found"
    assert (await wait(client, run, session="session_nope")).body["code"] == "session_not_found"
    assert (await read(client, "waitpoint_nope")).body["code"] == "waitpoint_not_found"
    waitpoint_id = (await wait(client, run)).body["waitpointId"]
    other = site.client(OTHER_KEY)
    assert (await read(other, waitpoint_id)).status == 404
    assert (await read(other, waitpoint_id, Timeout_Seconds="1")).status == 404
    assert (await wait(other, run)).status == 404


async def test_a_run_may_say_that_it_waits(client: Client, run: str) -> None:
    waitpoint_id = (await wait(client, run)).body["waitpointId"]
    path = f"/engine/v1/runs/{run}/waitpoints/tokens/{waitpoint_id}/wait"
    assert (await client.call("POST", path)).body == {"success": True}
    for wrong in (path.replace(run, "run_x"), path.replace(waitpoint_id, "waitpoint_x")):
        assert (await client.call("POST", wrong)).status == 404


@pytest.mark.parametrize("host", ["x:abc", "x:99999999", "x:-1", "http://y/"])
async def test_a_host_that_is_none_does_not_matter(site: Site, host: str) -> None:
    created = await site.client().create("s", task="nobody")
    wait = await site.client().call(
        "POST", f"/api/v1/runs/{created.body['runId']}/session-streams/wait", {"session": "s", "io": "in"}
    )
    path = f"/api/v1/waitpoints/tokens/{wait.body['waitpointId']}"
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {ROOT_KEY}", "Connection: close"]
    answer = await site.raw("\r\n".join(lines).encode() + b"\r\n\r\n")
    assert answer.status == 200
    assert answer.json["url"].endswith(path)


@pytest.mark.parametrize("timeout", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
async def test_a_timeout_beyond_the_calendar_is_none(site: Site, timeout: str) -> None:
    created = await site.client().create("s", task="nobody")
    wait = await site.client().call(
        "POST",
        f"/api/v1/runs/{created.body['runId']}/session-streams/wait",
        {"session": "s", "io": "in", "timeout": timeout},
    )
    assert wait.status == 200


async def test_two_one_time_tokens_of_one_second_are_two(site: Site) -> None:
    await site.client().create("s", task="nobody")
    body = {"scopes": ["write:sessions:s"], "oneTimeUse": True}
    minted = [(await site.client().call("POST", "/api/v1/auth/public-tokens", body)).body["token"] for _ in range(2)]
    assert [(await site.client(token).append("s", "x")).status for token in minted] == [200, 200]
