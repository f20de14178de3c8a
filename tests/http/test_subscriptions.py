"""Following channels over HTTP: resumed, settled, limited in time, ended with their server or credential."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from harness.client import Client, Frame
from harness.in_process import ENVIRONMENT, ROOT_KEY, Site, open_site, session_token
from harness.out import trim, write_out
from sessions_core.domain.channel import TURN_COMPLETE, Io, control_record, data_record
from sessions_core.domain.ids import PartId
from sessions_server.config import Config

FAR = 30
"""Seconds: less than the window that a stream has if nobody asks for another."""


async def batches(frames: AsyncGenerator[Frame], records: int) -> list[dict[str, Any]]:
    """Read until so many records have come."""
    seen: list[dict[str, Any]] = []
    async for frame in frames:
        seen += frame.records
        if len(seen) >= records:
            return seen
    raise AssertionError(f"the stream ended after {seen}")


async def test_a_subscription_begins_at_once_with_the_headers_browsers_need(client: Client, site: Site) -> None:
    began = monotonic()
    async with client.subscribe("later", Origin="https://app.test") as (response, frames):
        assert monotonic() - began < FAR
        assert response.headers["X-Stream-Version"] == "v2"
        assert response.headers["Access-Control-Expose-Headers"] == "*"
        assert response.headers["Access-Control-Allow-Origin"] == "https://app.test"
        assert response.headers["Content-Type"] == "text/event-stream"
        assert "X-Request-Id" in response.headers
        first = await anext(frames)
        assert (first.event, first.data["tail"]["seq_num"]) == ("ping", 0)
        await client.create("later")
        await client.append("later", "x", io="out")
        [record] = await batches(frames, 1)
        assert json.loads(record["body"])["data"] == "x"


async def test_a_subscription_gives_what_is_there_then_what_comes(client: Client, first: int) -> None:
    await client.create("chat-1")
    await client.append("chat-1", "0")
    async with client.subscribe("chat-1", "in") as (_, frames):
        old = (await batches(frames, first + 1))[-1]
        await client.append("chat-1", "1")
        [new] = await batches(frames, 1)
    assert [old["seq_num"], new["seq_num"]] == [first, first + 1]
    assert "headers" not in old
    assert old["timestamp"] <= new["timestamp"]


@pytest.mark.parametrize(
    ("last", "start"),
    [
        ("1", 2),
        ("0", 1),
        ("1-0", 2),
        ("1,17,400", 2),
        ("-5", 0),
        ("x", 0),
        ("", 0),
        (None, 0),
    ],
)
async def test_a_subscription_resumes_after_the_id_it_names(
    client: Client, last: str | None, start: int, first: int
) -> None:
    await client.create("chat-1")
    for number in range(first, 4):
        await client.append("chat-1", str(number))
    after = {} if last is None else {"Last_Event_ID": last}
    async with client.subscribe("chat-1", "in", None, 30, **after) as (_, frames):
        frame = await anext(frames)
    assert [record["seq_num"] for record in frame.records] == list(range(start, 4))
    assert frame.id == "3"


@pytest.mark.parametrize("last", ["99", "9" * 30])
async def test_an_id_past_the_tail_means_the_tail(client: Client, last: str, first: int) -> None:
    await client.create("chat-1")
    await client.append("chat-1", "0")
    async with client.subscribe("chat-1", "in", Last_Event_ID=last) as (response, frames):
        assert "X-Session-Gap" not in response.headers
        assert (await anext(frames)).event == "ping"
        await client.append("chat-1", "1")
        [record] = await batches(frames, 1)
        assert record["seq_num"] == first + 1


async def test_a_window_without_records_ends_with_done(client: Client) -> None:
    await client.create("chat-1")
    began = monotonic()
    async with client.subscribe("chat-1", "in", window=1) as (_, frames):
        events = [frame async for frame in frames]
    assert 0.9 < monotonic() - began < FAR
    assert [frame.event for frame in events] == ["ping", "message"]
    assert events[-1].data == "[DONE]"


async def test_each_record_opens_the_window_anew(client: Client, first: int) -> None:
    await client.create("chat-1")
    began = monotonic()
    async with client.subscribe("chat-1", "in", window=3) as (_, frames):
        for number in range(3):
            await asyncio.sleep(1.5)
            await client.append("chat-1", str(number))
        seen = [record["seq_num"] async for frame in frames for record in frame.records]
    assert seen == list(range(first + 3))
    assert monotonic() - began > 7


async def test_a_reader_that_speaks_http_1_0_gets_live_records_without_chunks(client: Client, site: Site) -> None:
    await client.create("chat-1")
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    lines = ["GET /realtime/v1/sessions/chat-1/in HTTP/1.0", f"Authorization: Bearer {ROOT_KEY}", "Timeout-Seconds: 3"]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await reader.readuntil(b"event: ping\n")
    await client.append("chat-1", "one")
    body = await reader.read()
    writer.close()
    assert b"\n\nevent: batch\n" in body
    assert body.endswith(b"data: [DONE]\n\n")
    assert b"\r\n" not in body, "a chunk's size would stand between such"


async def test_a_settled_channel_is_drained_and_closed_quickly(client: Client, site: Site) -> None:
    await client.create("chat-1")
    await write_out(site, "chat-1", data_record({"a": 1}, PartId("a")), control_record(TURN_COMPLETE))
    await trim(site, "chat-1", 0)
    began = monotonic()
    async with client.subscribe("chat-1", X_Peek_Settled="1") as (response, frames):
        assert response.headers["X-Session-Settled"] == "true"
        events = [frame async for frame in frames]
    assert monotonic() - began < FAR
    assert sum(len(frame.records) for frame in events) == 3
    assert events[-1].data == "[DONE]"
    async with client.subscribe("chat-1", after=2, X_Peek_Settled="1") as (response, frames):
        assert response.headers["X-Session-Settled"] == "true"
        assert [frame.event async for frame in frames] == ["ping", "message"]


@pytest.mark.parametrize(("io", "peek"), [("in", "1"), ("out", "0"), ("out", "true")])
async def test_settled_is_only_told_on_out_to_those_who_ask(client: Client, site: Site, io: str, peek: str) -> None:
    await client.create("chat-1")
    await write_out(site, "chat-1", control_record(TURN_COMPLETE))
    async with client.subscribe("chat-1", io, window=1, X_Peek_Settled=peek) as (response, _):
        assert "X-Session-Settled" not in response.headers


async def test_a_channel_in_the_middle_of_a_turn_is_not_settled(client: Client, site: Site) -> None:
    await client.create("chat-1")
    await write_out(site, "chat-1", control_record(TURN_COMPLETE), data_record({"a": 1}, PartId("a")))
    async with client.subscribe("chat-1", window=1, X_Peek_Settled="1") as (response, _):
        assert "X-Session-Settled" not in response.headers


async def test_a_reader_is_told_if_what_it_asks_for_is_gone(client: Client, site: Site) -> None:
    await client.create("chat-1")
    await write_out(site, "chat-1", *(data_record({"n": n}, PartId(str(n))) for n in range(6)))
    await trim(site, "chat-1", 4)
    session = await site.sessions.sessions.find_cached(ENVIRONMENT, "chat-1")
    assert session is not None
    while not (first := (await site.sessions.ports.log.tail(session.channel(Io.OUT))).first_seq):
        await asyncio.sleep(0.02)  # S2 trims in the background
    async with client.subscribe("chat-1", after=1) as (response, frames):
        assert response.headers.get("X-Session-Gap") == (str(first) if first > 2 else None)
        assert (await batches(frames, 1))[0]["seq_num"] == max(first, 2)
    async with client.subscribe("chat-1", after=first - 1) as (response, _):
        assert "X-Session-Gap" not in response.headers


async def test_a_closed_session_can_still_be_read(client: Client) -> None:
    await client.create("chat-1")
    await client.append("chat-1", "0")
    await client.call("POST", "/api/v1/sessions/chat-1/close")
    assert (await client.records("chat-1", "in"))[0]["data"] == "0"
    async with client.subscribe("chat-1", "in") as (_, frames):
        assert (await batches(frames, 1))[0]["seq_num"] == 0


async def test_a_large_backlog_comes_whole_and_in_frames_of_bounded_size(client: Client, first: int) -> None:
    await client.create("chat-1")
    for number in range(6):
        await client.append("chat-1", f"{number}" + "x" * 400_000)
    seen: list[dict[str, Any]] = []
    async with client.http.get(
        f"{client.address}/realtime/v1/sessions/chat-1/in",
        headers={"Authorization": f"Bearer {client.key}", "Timeout-Seconds": "1"},
        read_bufsize=2**21,
    ) as response:
        text = await response.text()
    for line in text.splitlines():
        if line.startswith('data: {"records"'):
            assert len(line) < 2 * 1_048_576
            seen += json.loads(line.removeprefix("data: "))["records"]
    assert [record["seq_num"] for record in seen] == list(range(first + 6))


async def test_a_stopping_server_ends_subscriptions_with_done(client: Client, site: Site) -> None:
    await client.create("chat-1")
    async with client.subscribe("chat-1", "in") as (_, frames):
        await anext(frames)
        site.server.context.streams.end()
        assert [frame.data async for frame in frames] == ["[DONE]"]
    assert len(site.server.context.streams) == 0


async def test_a_stream_asks_no_class_of_its_transport(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other event loops than asyncio's own, such as uvloop, have transports of their own."""

    class Foreign:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    monkeypatch.setattr(web.BaseRequest, "transport", property(lambda request: Foreign(request.protocol.transport)))
    await client.create("chat-1")
    seq = (await client.append("chat-1", "hello")).body["seq"]
    async with client.subscribe("chat-1", "in") as (_, frames):
        assert (await batches(frames, seq + 1))[-1]["seq_num"] == seq


async def test_a_reader_that_leaves_while_the_server_stops_is_no_failure(
    client: Client, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await client.create("chat-1")
    async with client.subscribe("chat-1", "in") as (_, frames):
        await anext(frames)
        assert site.server._runner is not None
        assert site.server._runner.server is not None
        site.server.context.streams.end()
        for connection in site.server._runner.server.connections:
            assert connection.transport is not None
            connection.transport.abort()
        with pytest.raises(aiohttp.ClientError):
            await anext(frames)
    await none_left(site)
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_reader_that_leaves_is_forgotten(client: Client, site: Site) -> None:
    await client.create("chat-1")
    async with client.subscribe("chat-1", "in") as (response, frames):
        await anext(frames)
        assert len(site.server.context.streams) == 1
        response.close()
    await none_left(site)
    assert site.sessions.hub.channels == 0


async def test_a_reader_that_takes_nothing_is_cut_off_and_slows_nobody(profile: str, tmp_path: Path) -> None:
    config = Config(slow_write=timedelta(seconds=0.3))
    async with open_site(profile, tmp_path, config) as site:
        client = site.client()
        await client.create("chat-1")
        head = f"GET /realtime/v1/sessions/chat-1/in HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ROOT_KEY}\r\n\r\n"
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", site.port))
        slow.sendall(head.encode())
        async with client.subscribe("chat-1", "in") as (_, frames):
            for number in range(8):
                await client.append("chat-1", f"{number}" + "x" * 200_000)
            seen = await batches(frames, 8)
        assert [record["seq_num"] for record in seen] == list(range(8))
        await none_left(site)
        slow.close()


async def none_left(site: Site) -> None:
    """Wait until no subscription is open."""
    for _ in range(200):
        if not len(site.server.context.streams):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{len(site.server.context.streams)} subscriptions are still open")


async def test_a_stream_ends_with_the_credential_that_opened_it(client: Client, site: Site) -> None:
    await client.create("chat-1")
    reader = site.client(session_token(site, "chat-1", seconds=2))
    started = monotonic()
    async with reader.subscribe("chat-1", window=60) as (_, frames):
        assert [frame.data async for frame in frames][-1] == "[DONE]"
    assert monotonic() - started < 20  # and not after the window
