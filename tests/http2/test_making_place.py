"""A full server closes who has been without a request for longest: over HTTP/2, and while TLS is being agreed on, too."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from h2.errors import ErrorCodes

from harness.http2 import PATIENCE, PREFACE, connect
from harness.in_process import ROOT_KEY, Site
from harness.sockets import metric, served, until_metric
from harness.tls import make_certificate

LONG = timedelta(minutes=5)
AUTHORIZED = [("authorization", f"Bearer {ROOT_KEY}")]
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
APPEND = "/realtime/v1/sessions/chat-1/in/append"
RECORDS = "/realtime/v1/sessions/chat-1/in/records"
CREATE = b'{"type":"chat.agent","taskIdentifier":"nobody","triggerConfig":{"basePayload":{}},"externalId":"chat-1"}'


async def until_end(reader: asyncio.StreamReader) -> None:
    """Wait until the server has closed."""
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""


# --- Without TLS --------------------------------------------------------------------------------


async def test_a_connection_without_streams_is_told_to_go_and_one_with_a_stream_stays(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=2) as site:
        async with connect(site.port) as busy, connect(site.port) as idle:
            assert (await busy.call("POST", "/api/v1/sessions", CREATE, AUTHORIZED)).status == 201
            stream = busy.begin("POST", APPEND, AUTHORIZED)
            await stream.send(b"he")
            assert (await idle.call("GET", "/healthz")).status == 200
            await until_metric(site, "sessions_connections_idle", 1)
            async with connect(site.port) as newcomer, asyncio.timeout(PATIENCE):
                assert (await newcomer.call("GET", "/healthz")).status == 200
                await idle.closed.wait()
                assert [(last, code) for last, code, _ in idle.goaways] == [(1, ErrorCodes.NO_ERROR)]
                await stream.send(b"yo", end=True)
                assert (await stream.answer()).status == 200
                assert busy.goaways == []
                assert (await busy.call("GET", RECORDS, headers=AUTHORIZED)).body.count(b"heyo") == 1
        assert metric(site, "sessions_connections_made_place_total") == 1


async def test_a_connection_whose_streams_are_over_waits_behind_those_that_waited_before(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=2) as site, connect(site.port) as first, connect(site.port) as second:
        for client in (first, second, first):
            assert (await client.call("GET", "/healthz")).status == 200
        async with connect(site.port) as newcomer, asyncio.timeout(PATIENCE):
            assert (await newcomer.call("GET", "/healthz")).status == 200
            await second.closed.wait()
            assert (await first.call("GET", "/healthz")).status == 200


async def test_a_connection_that_is_one_too_many_is_told_so(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=2) as site, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(site.port)) for _ in range(2)]
        assert (await clients[0].call("POST", "/api/v1/sessions", CREATE, AUTHORIZED)).status == 201
        streams = [client.begin("GET", "/realtime/v1/sessions/chat-1/in", AUTHORIZED, end=True) for client in clients]
        assert [(await stream.head())[0] for stream in streams] == [200, 200]
        async with connect(site.port) as surplus, asyncio.timeout(PATIENCE):
            await surplus.closed.wait()
            [(_, code, words)] = surplus.goaways
            assert (code, words) == (ErrorCodes.ENHANCE_YOUR_CALM, b"too many connections")
        for client in clients:
            assert (await client.call("GET", "/healthz")).status == 200


@pytest.mark.parametrize("beginning", [PREFACE[:9], PREFACE, b""], ids=["half a preface", "no settings", "nothing"])
async def test_who_has_begun_nothing_makes_place(tmp_path: Path, beginning: bytes) -> None:
    async with served(tmp_path, max_connections=1) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(beginning)
        await until_metric(site, "sessions_connections", 1)
        async with connect(site.port) as newcomer, asyncio.timeout(PATIENCE):
            assert (await newcomer.call("GET", "/healthz")).status == 200
            await reader.read()
        writer.close()


async def test_who_has_been_told_to_go_makes_place_at_once(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=1) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(PREFACE + bytes((0, 0, 5, 0, 0, 0, 0, 0, 1)) + b"stray")
        async with asyncio.timeout(PATIENCE):
            await reader.read()  # the server is silent from here on, but hears on for a second
            async with connect(site.port) as newcomer:
                assert (await newcomer.call("GET", "/healthz")).status == 200
        assert metric(site, "sessions_connections_refused_total") == 0
        writer.close()


async def test_an_answer_that_is_being_fetched_is_not_cut(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=1, slow_write=LONG) as site, connect(site.port) as client:
        assert (await client.call("POST", "/api/v1/sessions", CREATE, AUTHORIZED)).status == 201
        assert (await client.call("POST", APPEND, b"x" * 900_000, AUTHORIZED)).status == 200
        client.gives_window = False
        stream = client.begin("GET", RECORDS, AUTHORIZED, end=True)
        assert (await stream.head())[0] == 200
        async with connect(site.port) as newcomer, asyncio.timeout(PATIENCE):
            await newcomer.closed.wait()
        client.give(stream.id, 1_000_000)
        assert len((await stream.answer()).body) > 900_000


# --- With TLS -----------------------------------------------------------------------------------


@attrs.frozen
class Secure:
    """A server that speaks TLS, and whom a client must trust."""

    site: Site
    certificate: Path

    def context(self, *protocols: str) -> ssl.SSLContext:
        """Return what a client speaks TLS with that offers *protocols*."""
        made = ssl.create_default_context(cafile=self.certificate)
        made.set_alpn_protocols(protocols)
        return made

    async def connect(self, protocol: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Agree on *protocol*."""
        tls = self.context(protocol)
        return await asyncio.open_connection("127.0.0.1", self.site.port, ssl=tls, server_hostname="localhost")


@asynccontextmanager
async def secured(tmp_path: Path, **settings: Any) -> AsyncIterator[Secure]:
    """Serve over TLS."""
    certificate, key = make_certificate(tmp_path)
    async with served(tmp_path, tls_cert=certificate, tls_key=key, **settings) as site:
        yield Secure(site, certificate)


async def test_who_does_not_agree_on_tls_counts_and_makes_place(tmp_path: Path) -> None:
    async with secured(tmp_path, max_connections=2) as secure, AsyncExitStack() as stack:
        silent = [await asyncio.open_connection("127.0.0.1", secure.site.port) for _ in range(2)]
        for _, writer in silent:
            stack.callback(writer.close)
        await until_metric(secure.site, "sessions_connections", 2)
        async with connect(secure.site.port, tls=secure.context("h2")) as client:
            assert (await client.call("GET", "/healthz")).status == 200
            await until_end(silent[0][0])
            reader, writer = await secure.connect("http/1.1")
            stack.callback(writer.close)
            writer.write(GET)
            async with asyncio.timeout(PATIENCE):
                await reader.readuntil(b'{"status":"ok"}')
            await until_end(silent[1][0])
            assert (await client.call("GET", "/healthz")).status == 200
        assert metric(secure.site, "sessions_connections_made_place_total") == 2


@pytest.mark.parametrize("ends", ["garbage", "end", "reset"])
async def test_a_handshake_that_fails_gives_its_place_back(tmp_path: Path, ends: str) -> None:
    async with secured(tmp_path) as secure:
        reader, writer = await asyncio.open_connection("127.0.0.1", secure.site.port)
        await until_metric(secure.site, "sessions_connections", 1)
        if ends == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.close()
        else:
            writer.write(b"no TLS at all, whatever it is\r\n" if ends == "garbage" else b"")
            writer.write_eof()
            async with asyncio.timeout(PATIENCE):
                await reader.read()
        await until_metric(secure.site, "sessions_connections", 0)
        assert metric(secure.site, "sessions_connections_idle") == 0
        writer.close()


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
async def test_idle_connections_over_tls_make_place(tmp_path: Path, protocol: str) -> None:
    async with secured(tmp_path, max_connections=1) as secure:
        reader, writer = await secure.connect(protocol)
        if protocol == "http/1.1":
            writer.write(GET)
            async with asyncio.timeout(PATIENCE):
                await reader.readuntil(b'{"status":"ok"}')
        else:
            writer.write(PREFACE + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        async with connect(secure.site.port, tls=secure.context("h2")) as newcomer, asyncio.timeout(PATIENCE):
            assert (await newcomer.call("GET", "/healthz")).status == 200
            await reader.read()
        writer.close()


async def test_a_request_that_comes_along_with_the_end_of_the_handshake_is_answered(tmp_path: Path) -> None:
    async with secured(tmp_path) as secure:
        answer = await asyncio.to_thread(ask_at_once, secure.site.port, secure.context("http/1.1"))
        assert answer.endswith(b'{"status":"ok"}')
        await until_metric(secure.site, "sessions_connections", 0)  # one connection, which has one protocol
        assert metric(secure.site, "sessions_connections_idle") == 0


def ask_at_once(port: int, context: ssl.SSLContext) -> bytes:
    """Agree on TLS, send the end of the handshake and a request in one piece, and read the answer."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as wire:
        is_agreed = False
        while not is_agreed:
            try:
                tls.do_handshake()
                is_agreed = True
            except ssl.SSLWantReadError:
                wire.sendall(outgoing.read())
                incoming.write(wire.recv(65_536))
        tls.write(GET.replace(b"Host: x", b"Host: x\r\nConnection: close"))
        wire.sendall(outgoing.read())
        said = b""
        while not said.endswith(b"}"):
            incoming.write(wire.recv(65_536))
            try:
                said += tls.read()
            except ssl.SSLWantReadError:
                continue
        return said


async def test_an_answer_that_is_being_fetched_over_tls_is_not_cut(tmp_path: Path) -> None:
    async with (
        secured(tmp_path, max_connections=2, slow_write=LONG) as secure,
        connect(secure.site.port, tls=secure.context("h2")) as client,
    ):
        assert (await client.call("POST", "/api/v1/sessions", CREATE, AUTHORIZED)).status == 201
        for _ in range(12):  # the kernel holds some megabytes of them
            assert (await client.call("POST", APPEND, b"x" * 1_000_000, AUTHORIZED)).status == 200
        reader, writer = await secure.connect("http/1.1")
        asked = f"GET {RECORDS} HTTP/1.1\r\nHost: x\r\n{AUTHORIZED[0][0]}: {AUTHORIZED[0][1]}\r\n\r\n"
        writer.write(asked.encode())
        async with asyncio.timeout(4 * PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            stream = client.begin("GET", "/realtime/v1/sessions/chat-1/in", AUTHORIZED, end=True)
            assert (await stream.head())[0] == 200
            async with connect(secure.site.port, tls=secure.context("h2")) as newcomer:
                await newcomer.closed.wait()
                assert newcomer.goaways[-1][1] == ErrorCodes.ENHANCE_YOUR_CALM
            await reader.readexactly(int(re.findall(rb"Content-Length: (\d+)", head)[0]))
        writer.close()
