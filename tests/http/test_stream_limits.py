"""Limits of streams, as clients of a real server meet them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from s2_sdk import S2ServerError, SeqNum

from harness.client import Client
from harness.direct import call, open_stream, own_credentials, write_batches
from harness.http2 import connect
from harness.in_process import ENVIRONMENT, OTHER_KEY, ROOT_KEY, Site, session_token
from harness.limits import Opened, refused
from sessions_server import streams

ORIGIN = "https://app.example"
PATIENCE = 30
NARROW_KEY = "tr_dev_sk_" + "s" * 24


def open_streams(site: Site) -> int:
    """Return for how many holders there are streams."""
    return len(site.server.context.limits.streams)


async def all_over(site: Site) -> None:
    async with asyncio.timeout(PATIENCE):
        while open_streams(site):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("limit", "credentials", "names"),
    [
        ("streams_per_token", ("token", "token"), ("chat-1", "chat-1")),
        ("streams_per_session", ("token", "other token"), ("chat-1", "chat-1")),
        ("streams_per_environment", ("token", "key"), ("chat-1", "chat-2")),
        ("streams", ("token", "other key"), ("chat-1", "chat-2")),
    ],
)
async def test_one_stream_too_many_is_refused_until_another_is_over(
    opened: Opened, limit: str, credentials: tuple[str, str], names: tuple[str, str]
) -> None:
    async with opened(**{limit: 2}) as site:
        await site.client().create("chat-1")
        shown = {
            "token": session_token(site, "chat-1"),
            "other token": session_token(site, "chat-1", jti="other"),
            "key": ROOT_KEY,
            "other key": OTHER_KEY,
        }
        one, other = (site.client(shown[each]) for each in credentials)
        async with one.subscribe(names[0]) as (response, _):
            assert response.status == 200
            async with one.subscribe(names[0]) as (second, _):
                assert second.status == 200
                path = f"/realtime/v1/sessions/{names[1]}/out"
                answer = await other.call("GET", path, Origin=ORIGIN)
                assert (answer.status, answer.body["code"]) == (429, "too_many_streams")
                assert answer.body["limit"] == 2
                assert answer.headers["Retry-After"] == "1"
                assert "x-ratelimit-reset" not in answer.headers, "clients would come again then, which is too soon"
                assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
            async with asyncio.timeout(PATIENCE):
                while True:
                    async with other.subscribe(names[1]) as (third, _):
                        if third.status == 200:
                            break
        await all_over(site)
        kind = {"streams": "process"}.get(limit, limit.removeprefix("streams_per_"))
        assert await refused(site, f"{kind}_streams") >= 1


Ending = Callable[[Site, Client, AsyncExitStack], Any]


async def leave(site: Site, client: Client, stack: AsyncExitStack) -> None:
    await stack.enter_async_context(client.subscribe("chat-1"))
    assert open_streams(site)
    await stack.aclose()


async def read_to_its_end(_site: Site, client: Client, stack: AsyncExitStack) -> None:
    _, events = await stack.enter_async_context(client.subscribe("chat-1", window=1))
    assert [frame async for frame in events][-1].data == "[DONE]"


async def peek(_site: Site, client: Client, stack: AsyncExitStack) -> None:
    _, events = await stack.enter_async_context(client.subscribe("chat-1", window=1, X_Peek_Settled="1"))
    assert [frame async for frame in events]


async def outlive_the_token(site: Site, _client: Client, stack: AsyncExitStack) -> None:
    short = site.client(session_token(site, "chat-1", seconds=1))
    _, events = await stack.enter_async_context(short.subscribe("chat-1"))
    assert [frame async for frame in events]


async def revoke(site: Site, _client: Client, stack: AsyncExitStack) -> None:
    store = site.sessions.environments
    key = await store.add_key(ENVIRONMENT, NARROW_KEY, ["read:sessions"])
    _, events = await stack.enter_async_context(site.client(NARROW_KEY).subscribe("chat-1"))
    assert open_streams(site)
    await store.revoke_key(ENVIRONMENT, key.id)
    assert [frame async for frame in events]


async def shut_down(site: Site, client: Client, stack: AsyncExitStack) -> None:
    _, events = await stack.enter_async_context(client.subscribe("chat-1"))
    assert open_streams(site)
    await site.server.close()
    assert [frame async for frame in events]


async def reset(site: Site, _: Client, stack: AsyncExitStack) -> None:
    connection = await stack.enter_async_context(connect(site.port))
    stream = connection.begin(
        "GET", "/realtime/v1/sessions/chat-1/out", [("authorization", f"Bearer {ROOT_KEY}")], end=True
    )
    assert (await stream.head())[0] == 200
    assert open_streams(site)
    stream.reset()


async def poll(site: Site, client: Client, _: AsyncExitStack) -> None:
    run = (await client.call("GET", "/api/v1/sessions/chat-1/runs")).body["data"][0]["runId"]
    body = {"session": "chat-1", "io": "in"}
    wait = (await client.call("POST", f"/api/v1/runs/{run}/session-streams/wait", body)).body["waitpointId"]
    path = f"/api/v1/waitpoints/tokens/{wait}"
    assert (await client.call("GET", path, Timeout_Seconds="1")).status == 200
    asking = asyncio.create_task(client.call("GET", path, Timeout_Seconds="600"))
    async with asyncio.timeout(PATIENCE):
        while not open_streams(site):
            await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.wait([asking])


async def read_directly(site: Site, client: Client, _: AsyncExitStack) -> None:
    await client.append("chat-1", "x", io="out")
    async with asyncio.timeout(PATIENCE), open_stream(site, own_credentials()) as stream:
        async for _batch in stream.read_session(start=SeqNum(0)):
            assert open_streams(site)
            break


async def write_directly(site: Site, _: Client, __: AsyncExitStack) -> None:
    assert await write_batches(site, 3) == 3


@pytest.mark.parametrize(
    "end",
    [
        leave,
        read_to_its_end,
        peek,
        outlive_the_token,
        revoke,
        shut_down,
        reset,
        poll,
        read_directly,
        write_directly,
    ],
)
async def test_however_a_stream_ends_it_counts_no_more(
    opened: Opened, end: Ending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "RECHECK_SECONDS", 0.05)
    monkeypatch.setattr("sessions_server.auth.authenticator.KEY_SECONDS", 0.0)
    async with opened() as site:
        await site.client().create("chat-1")
        async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
            await end(site, site.client(), stack)
            await all_over(site)


async def test_waits_count_as_streams(opened: Opened) -> None:
    async with opened(streams=1) as site:
        client = site.client()
        run = (await client.create("chat-1")).body["runId"]
        body = {"session": "chat-1", "io": "in"}
        wait = (await client.call("POST", f"/api/v1/runs/{run}/session-streams/wait", body)).body["waitpointId"]
        async with client.subscribe("chat-1"):
            path = f"/api/v1/waitpoints/tokens/{wait}"
            answer = await client.call("GET", path, Timeout_Seconds="5")
            assert (answer.status, answer.body["code"]) == (429, "too_many_streams")
            assert (await client.call("GET", path)).status == 200, "one that does not wait is none"


async def test_long_answers_of_the_data_plane_count_as_streams(opened: Opened) -> None:
    async with opened(streams_per_session=1) as site:
        client = site.client()
        await client.create("chat-1")
        async with client.subscribe("chat-1"):
            answer = await call(site, "GET", own_credentials(), accept="text/event-stream")
            assert (answer.status, answer.code) == (429, "rate_limited")
            waiting = await call(site, "GET", own_credentials(), query="?tail_offset=0&wait=60")
            assert (waiting.status, waiting.code) == (429, "rate_limited")
            with pytest.raises(S2ServerError) as refusal:
                await write_batches(site, 1)
            assert refusal.value.status_code == 429
