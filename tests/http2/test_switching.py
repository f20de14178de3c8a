"""One port, two protocols: the first bytes decide, or TLS does."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
import pytest

from harness.http2 import PATIENCE, PREFACE, connect
from harness.server import KEY, ServerProcess
from harness.tls import make_certificate
from http2.conftest import OpenSite
from sessions_server.http2.stream import Stream

CURL: Final = shutil.which("curl")
NODE: Final = shutil.which("node")
AUTHORIZED: Final = [("authorization", f"Bearer {KEY}"), ("content-type", "application/json")]


async def hello(stream: Stream) -> None:
    await stream.start(200, {})
    await stream.write(b"hello")


async def test_a_preface_may_come_byte_by_byte(open_listener: OpenSite) -> None:
    site = await open_listener(hello)
    async with connect(site.port, piecewise=True) as client:
        assert (await client.call("GET", "/")).body == b"hello"


async def test_a_preface_and_all_that_follows_may_come_at_once(open_listener: OpenSite) -> None:
    site = await open_listener(hello)
    async with connect(site.port, flush=False) as client:
        assert (await client.call("GET", "/")).body == b"hello"


@pytest.mark.parametrize(
    "data", [b"G", b"PUT / HTTP/1.1\r\n", b"PRI * HTTP/1.1\r\n\r\n", b"\x16\x03\x01", PREFACE[:23] + b"x"]
)
async def test_everything_else_goes_on_as_http_1(open_listener: OpenSite, data: bytes) -> None:
    site = await open_listener(hello)
    for pieces in ([data], [data[:1], data[1:]]):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE):
            said = await reader.read()
        writer.close()
        assert said.startswith(b"HTTP/1.1 got " + data[:1])


async def test_http_1_requests_are_answered_beside_http_2(server: ServerProcess) -> None:
    async with connect(server.port) as client:
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            async with asyncio.timeout(PATIENCE):
                assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.close()
            assert (await client.call("GET", "/healthz")).status == 200


async def test_an_offer_to_upgrade_is_passed_over(server: ServerProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
    )
    async with asyncio.timeout(PATIENCE):
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    writer.close()


@pytest.mark.skipif(CURL is None, reason="there is no curl")
@pytest.mark.parametrize("flag", ["--http2-prior-knowledge", "--http1.1", "--http2"])
def test_curl_is_served(server: ServerProcess, flag: str) -> None:
    assert CURL is not None
    command = [CURL, "-sS", "-m", "10", flag, "-w", "%{http_version}", f"{server.address}/healthz"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    assert said == '{"status":"ok"}' + ("2" if "prior" in flag else "1.1")


SCRIPT: Final = """
import http2 from 'node:http2'
const [, , address, key] = process.argv
const session = http2.connect(address)
session.on('error', fail)
function fail(error) { console.error(error); process.exit(1) }
function call(method, path, body) {
  return new Promise((resolve) => {
    const stream = session.request({ ':method': method, ':path': path, authorization: `Bearer ${key}` })
    let status, text = ''
    stream.setEncoding('utf8')
    stream.on('response', (headers) => { status = headers[':status'] })
    stream.on('data', (piece) => { text += piece })
    stream.on('end', () => resolve([status, text.length]))
    stream.on('error', fail)
    stream.end(body)
  })
}
const create = { type: 'chat.agent', taskIdentifier: 'echo', triggerConfig: { basePayload: {} }, externalId: 'node' }
const results = [await call('POST', '/api/v1/sessions', JSON.stringify(create))]
const texts = Array.from({ length: 100 }, (_, number) => 'x'.repeat(number * 1000))
results.push(...await Promise.all(texts.map((text) => call('POST', '/realtime/v1/sessions/node/in/append', text))))
results.push(await call('GET', '/realtime/v1/sessions/node/in/records'))
results.push(await call('POST', '/realtime/v1/sessions/node/in/append', 'x'.repeat(4_000_000)))
console.log(JSON.stringify(results))
session.close()
"""


@pytest.mark.skipif(NODE is None, reason="there is no Node")
def test_node_is_served(server: ServerProcess, tmp_path: Path) -> None:
    assert NODE is not None
    (tmp_path / "script.mjs").write_text(SCRIPT)
    command = [NODE, str(tmp_path / "script.mjs"), server.address, KEY]
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=40)
    assert said.returncode == 0, said.stderr
    create, *appends, records, too_large = json.loads(said.stdout)
    assert create[0] == 201
    assert [status for status, _ in appends] == [200] * 100
    assert records[0] == 200
    assert records[1] > 4_900_000
    assert too_large[0] == 413


async def test_every_route_is_there(server: ServerProcess) -> None:
    async with connect(server.port) as client:
        body = {
            "type": "chat.agent",
            "taskIdentifier": "echo",
            "triggerConfig": {"basePayload": {}},
            "externalId": "all",
        }
        created = await client.call("POST", "/api/v1/sessions", json.dumps(body).encode(), AUTHORIZED)
        assert (created.status, created.json["externalId"]) == (201, "all")
        missing = await client.call("GET", "/nowhere")
        assert (missing.status, missing.json["code"]) == (404, "not_found")
        refused = await client.call("GET", "/api/v1/sessions")
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        head = await client.call("HEAD", "/healthz")
        assert (head.status, head.body) == (200, b"")
        page = await client.call("GET", "/")
        assert page.headers["content-type"].startswith("text/html")
        for name in ("connection", "transfer-encoding", "keep-alive"):
            assert name not in page.headers


async def test_a_subscription_streams_and_ends(server: ServerProcess) -> None:
    path = "/realtime/v1/sessions/sse/in"
    async with connect(server.port) as client:
        body = {
            "type": "chat.agent",
            "taskIdentifier": "nobody",
            "triggerConfig": {"basePayload": {}},
            "externalId": "sse",
        }
        assert (await client.call("POST", "/api/v1/sessions", json.dumps(body).encode(), AUTHORIZED)).status == 201
        stream = client.begin("GET", path, [*AUTHORIZED, ("timeout-seconds", "1")], end=True)
        assert (await stream.head())[1]["content-type"] == "text/event-stream"
        text = ""
        for number in range(20):
            await client.call("POST", path + "/append", b"text number %d." % number, AUTHORIZED)
            while f"text number {number}." not in text:
                piece = await stream.piece()
                assert piece is not None
                text += piece.decode()
        rest = (await stream.answer()).body
        assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_compressed_body_is_read_as_over_http_1(server: ServerProcess) -> None:
    async with connect(server.port) as client:
        body = {
            "type": "chat.agent",
            "taskIdentifier": "nobody",
            "triggerConfig": {"basePayload": {}},
            "externalId": "zip",
        }
        await client.call("POST", "/api/v1/sessions", json.dumps(body).encode(), AUTHORIZED)
        headers = [*AUTHORIZED, ("content-encoding", "gzip")]
        for data, status in ((gzip.compress(b"hi"), 200), (gzip.compress(b"x" * 5_000_000), 413), (b"no gzip", 400)):
            answer = await client.call("POST", "/realtime/v1/sessions/zip/in/append", data, headers)
            assert answer.status == status
        cut = gzip.compress(b"hi")[:-9]
        assert (await client.call("POST", "/realtime/v1/sessions/zip/in/append", cut, headers)).status == 400


# --- TLS ----------------------------------------------------------------------------------------


@attrs.frozen
class Secure:
    """A server that speaks TLS, and whom a client must trust."""

    port: int
    certificate: Path

    def context(self, *protocols: str) -> ssl.SSLContext:
        """Return what a client speaks TLS with that offers *protocols*."""
        made = ssl.create_default_context(cafile=self.certificate)
        if protocols:
            made.set_alpn_protocols(protocols)
        return made


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = make_certificate(folder)
    environment = {"SESSIONS_TLS_CERT": str(certificate), "SESSIONS_TLS_KEY": str(key)}
    with ServerProcess(folder / "data", environment=environment) as process:
        assert process.address.startswith("https://")
        yield Secure(process.port, certificate)


async def test_tls_agrees_on_http_2_where_both_can(secure: Secure) -> None:
    async with connect(secure.port, tls=secure.context("h2", "http/1.1")) as client:
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        body = b'{"type":"chat.agent","taskIdentifier":"nobody","triggerConfig":{"basePayload":{}},"externalId":"t"}'
        assert (await client.call("POST", "/api/v1/sessions", body, AUTHORIZED)).status == 201
        text = b"y" * 1_000_000
        answers = await asyncio.gather(
            *(client.call("POST", "/realtime/v1/sessions/t/in/append", text, AUTHORIZED) for _ in range(10))
        )
        assert [answer.status for answer in answers] == [200] * 10
        records = await client.call("GET", "/realtime/v1/sessions/t/in/records", headers=AUTHORIZED)
        assert len(records.body) > 10_000_000


@pytest.mark.parametrize("protocols", [("http/1.1",), ()])
async def test_tls_falls_back_to_http_1(secure: Secure, protocols: tuple[str, ...]) -> None:
    tls = secure.context(*protocols)
    reader, writer = await asyncio.open_connection("127.0.0.1", secure.port, ssl=tls, server_hostname="localhost")
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


async def test_who_agreed_on_http_2_has_to_speak_it(secure: Secure) -> None:
    tls = secure.context("h2")
    reader, writer = await asyncio.open_connection("127.0.0.1", secure.port, ssl=tls, server_hostname="localhost")
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_plain_bytes_where_tls_is_spoken_disturb_nobody(secure: Secure) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", secure.port)
    writer.write(PREFACE)
    async with asyncio.timeout(PATIENCE):
        await reader.read()
    writer.close()
    async with connect(secure.port, tls=secure.context("h2")) as client:
        assert (await client.call("GET", "/healthz")).status == 200


@pytest.mark.skipif(CURL is None, reason="there is no curl")
def test_curl_agrees_on_http_2(secure: Secure) -> None:
    assert CURL is not None
    address = f"https://localhost:{secure.port}/healthz"
    command = [CURL, "-sS", "-m", "10", "--cacert", str(secure.certificate), "-w", "%{http_version}", address]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    assert said == '{"status":"ok"}2'
