"""How a server that stops ends its HTTP/2 connections."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from pathlib import Path

import pytest
from hyperframe.frame import DataFrame, GoAwayFrame

from harness.http2 import PATIENCE, ResetError, connect, connect_raw
from harness.server import KEY, ServerProcess
from harness.tls import make_certificate
from http2.conftest import OpenSite
from sessions_server.http2.connection import Connection
from sessions_server.http2.stream import Stream

AUTHORIZED = [("authorization", f"Bearer {KEY}"), ("content-type", "application/json")]
NO_ERROR, INTERNAL_ERROR = 0, 2
EVERYTHING = 2**31 - 1


async def test_what_is_under_way_is_answered_and_the_client_is_told(open_listener: OpenSite) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(stream: Stream) -> None:
        begun.set()
        await go_on.wait()
        await stream.start(200, {})
        await stream.write(b"done")

    site = await open_listener(slow)
    async with connect(site.port) as client, connect(site.port) as idle:
        stream = client.begin("GET", "/", end=True)
        await begun.wait()
        site.listener.stop()
        closing = asyncio.create_task(site.listener.close(PATIENCE))
        async with asyncio.timeout(PATIENCE):
            await idle.closed.wait()
            while len(client.goaways) < 2:
                await asyncio.sleep(0.01)
        assert [(last, code) for last, code, _ in client.goaways] == [(EVERYTHING, NO_ERROR), (stream.id, NO_ERROR)]
        late = client.begin("GET", "/", end=True)
        with pytest.raises(ResetError, match="7"):
            await late.head()
        go_on.set()
        assert (await stream.answer()).body == b"done"
        async with asyncio.timeout(PATIENCE):
            await client.closed.wait()
            await closing
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", site.port)


@pytest.mark.parametrize("who", ["client", "server"])
async def test_who_reads_slowly_gets_the_end_of_the_last_answer(
    open_listener: OpenSite, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    size, connections = 60_000, list[Connection]()
    monkeypatch.setattr(Connection.__module__ + ".LINGER_SECONDS", 0.0)

    async def answer(stream: Stream) -> None:
        (connection,) = connections[:] = site.listener._connections
        connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await stream.start(200, {})
        await stream.write(bytes(size))

    site = await open_listener(answer)
    async with connect_raw(site.port, room=4096) as client, asyncio.timeout(PATIENCE):
        client.send(client.request(1))
        if who == "client":
            client.send(GoAwayFrame(0))
        while not connections:
            await asyncio.sleep(0.01)
        closing = asyncio.create_task(site.listener.close(PATIENCE)) if who == "server" else None
        while not connections[0].is_closed:
            await asyncio.sleep(0.01)
        data = [frame async for frame in client.frames() if isinstance(frame, DataFrame)]
        if closing is not None:
            await closing
    assert sum(len(frame.data) for frame in data) == size
    assert "END_STREAM" in data[-1].flags


async def test_what_does_not_end_is_cut_off_visibly(open_listener: OpenSite) -> None:
    async def hang(stream: Stream) -> None:
        await stream.start(200, {})
        await asyncio.Event().wait()

    site = await open_listener(hang)
    async with connect(site.port) as client:
        stream = client.begin("GET", "/", end=True)
        await stream.head()
        await site.listener.close(0.05)
        with pytest.raises(ResetError, match=str(INTERNAL_ERROR)):
            await stream.piece()


async def test_sigterm_in_mid_stream_ends_subscriptions_finishes_appends_and_leaves_with_0(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        async with connect(server.port) as client, connect(server.port) as other:
            body = {
                "type": "chat.agent",
                "taskIdentifier": "nobody",
                "triggerConfig": {"basePayload": {}},
                "externalId": "s",
            }
            assert (await client.call("POST", "/api/v1/sessions", json.dumps(body).encode(), AUTHORIZED)).status == 201
            path = "/realtime/v1/sessions/s/in"
            reading = client.begin("GET", path, [*AUTHORIZED, ("timeout-seconds", "60")], end=True)
            await reading.head()
            appending = client.begin("POST", path + "/append", AUTHORIZED)
            await appending.send(b"half of ")
            await client.call_ping()
            stopping = asyncio.create_task(asyncio.to_thread(server.stop, 20))
            async with asyncio.timeout(PATIENCE):
                while not client.goaways:
                    await asyncio.sleep(0.01)
            await appending.send(b"a message", end=True)
            answer = await appending.answer()
            assert (answer.status, answer.json["ok"]) == (200, True)
            assert (await reading.answer()).body.endswith(b"data: [DONE]\n\n")
            async with asyncio.timeout(PATIENCE):
                await client.closed.wait()
                await other.closed.wait()
            assert await stopping == 0
        assert not [line for line in server.output if "Traceback" in line or "ERROR" in line]
        server.start()
        async with connect(server.port) as client:
            records = (await client.call("GET", path + "/records", headers=AUTHORIZED)).json["records"]
            assert [record["data"] for record in records] == ["half of a message"]


async def test_connections_over_tls_end_as_well(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    environment = {"SESSIONS_TLS_CERT": str(certificate), "SESSIONS_TLS_KEY": str(key)}
    tls = ssl.create_default_context(cafile=certificate)
    tls.set_alpn_protocols(["h2"])
    with ServerProcess(tmp_path / "data", environment=environment) as server:
        async with connect(server.port, tls=tls) as client:
            assert (await client.call("GET", "/healthz")).status == 200
            stopping = asyncio.create_task(asyncio.to_thread(server.stop, 20))
            async with asyncio.timeout(PATIENCE):
                await client.closed.wait()
            assert [code for _, code, _ in client.goaways][-1] == NO_ERROR
        assert await stopping == 0
