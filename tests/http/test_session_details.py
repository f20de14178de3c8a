"""What the server tells about a session beside its row: who waits on its channels, and where they end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.client import Answer, Client
from harness.in_process import ENVIRONMENT, OTHER_KEY, Site
from sessions_core.domain.channel import Io

WAITPOINTS, CHANNELS = "/api/v1/sessions/{}/waitpoints", "/api/v1/sessions/{}/channels"


async def wait(client: Client, run: str, **body: Any) -> str:
    full = {"session": "chat-1", "io": "in", **body}
    answer = await client.call("POST", f"/api/v1/runs/{run}/session-streams/wait", full)
    waitpoint_id: str = answer.body["waitpointId"]
    return waitpoint_id


async def waiting(client: Client, name: str = "chat-1") -> list[Any]:
    return list((await client.call("GET", WAITPOINTS.format(name))).body["data"])


async def channels(client: Client, name: str = "chat-1") -> tuple[Any, Any]:
    first, second = (await client.call("GET", CHANNELS.format(name))).body["data"]
    return first, second


async def test_whoever_waits_is_listed_until_the_record_comes(client: Client, first: int) -> None:
    created = (await client.create("chat-1")).body
    assert await waiting(client) == []
    await client.append("chat-1", "known")
    run = created["runId"]
    on_out = await wait(client, run, io="out")
    limited = await wait(client, run, tags=["a", "b"], timeout="1h", idempotencyKey="secret")
    unlimited = await wait(client, run, session=created["id"], lastSeqNum=first + 7)
    assert [item["io"] for item in await waiting(client)] == ["in", "in", "out"]
    by_id = {item["id"]: item for item in await waiting(client)}
    one, two, three = by_id[limited], by_id[unlimited], by_id[on_out]
    timeout = datetime.fromisoformat(one.pop("timeoutAt")) - datetime.fromisoformat(one.pop("createdAt"))
    assert timeout == timedelta(hours=1)
    assert one == {"id": limited, "runId": run, "io": "in", "lastSeqNum": first, "tags": ["a", "b"]}
    assert (two["lastSeqNum"], two["timeoutAt"]) == (first + 7, None)
    assert three["lastSeqNum"] == -1
    await client.append("chat-1", "news")
    assert [item["id"] for item in await waiting(client, created["id"])] == [unlimited, on_out]


async def test_waits_on_other_sessions_are_not_listed(client: Client) -> None:
    run = (await client.create("chat-1")).body["runId"]
    await client.create("chat-2")
    await wait(client, run, session="chat-2")
    assert await waiting(client) == []
    assert len(await waiting(client, "chat-2")) == 1


async def test_channels_tell_where_they_begin_and_end_and_who_may_write(client: Client, first: int) -> None:
    created = (await client.create("chat-1")).body
    empty = {"firstSeqNum": 0, "nextSeqNum": 0, "lastRecordAt": None}
    before = await channels(client)
    assert before[0] == {"io": "in", **empty, "guard": before[0]["guard"]}
    assert before[1] == {"io": "out", **empty, "guard": {"state": "idle", "number": 0}}
    await client.append("chat-1", "one")
    await client.append("chat-1", "two")
    into, out = await channels(client, created["id"])
    assert (into["firstSeqNum"], into["nextSeqNum"], into["guard"]) == (0, first + 2, {"state": "live", "number": 1})
    assert abs(datetime.fromisoformat(into["lastRecordAt"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert out == before[1]


async def test_a_trimmed_channel_tells_what_is_kept(client: Client, site: Site) -> None:
    created = (await client.create("chat-1")).body
    for text in ("a", "b", "c"):
        await client.append("chat-1", text, io="out")
    session = await site.sessions.sessions.get(ENVIRONMENT, created["id"])
    tail = await site.sessions.channels.tail(session.channel(Io.OUT))
    await site.sessions.ports.log.trim(session.channel(Io.OUT), 2, guard=tail.guard)
    while not (out := (await channels(client))[1])["firstSeqNum"]:
        await asyncio.sleep(0.02)  # S2 trims in the background
    assert (out["firstSeqNum"], out["nextSeqNum"]) == (2, 4)


async def test_the_channels_of_a_closed_session_are_sealed(client: Client, first: int) -> None:
    await client.create("chat-1")
    await client.call("POST", "/api/v1/sessions/chat-1/close", {"reason": "over"})
    into, out = await channels(client)
    assert (into["guard"]["state"], out["guard"]["state"]) == ("sealed", "sealed")
    # The close signal and the turn-complete; and where a guard takes a seq, two guards of `in` and one of `out`.
    assert (into["nextSeqNum"], out["nextSeqNum"]) == (1 + 2 * first, 1 + first)


@pytest.mark.parametrize("path", [WAITPOINTS, CHANNELS])
async def test_who_may_read_the_session_may_read_this_and_nobody_else(client: Client, site: Site, path: str) -> None:
    created = (await client.create("chat-1")).body

    async def ask(credential: str, name: str) -> Answer:
        return await site.client(credential).call("GET", path.format(name))

    for name in ("chat-1", created["id"]):
        for scope in ("read:sessions:chat-1", f"read:sessions:{created['id']}", "read:sessions"):
            assert (await ask(site.sign([scope]), name)).status == 200
        for scope in ("read:sessions:other", "write:sessions", "admin:sessions", f"read:runs:{created['runId']}"):
            assert (await ask(site.sign([scope]), name)).status == 403
        assert (await ask(OTHER_KEY, name)).body["code"] == "session_not_found"
    assert (await client.call("GET", path.format("nope"))).status == 404
