"""Requests that are too large, too slow or too many: each is refused in the shape of every error, costs little, and ends.

Also what every answer says of itself: the request's id, and what browsers may do with it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bad_requests
from harness.client import Client
from harness.in_process import ENVIRONMENT, ROOT_KEY, RawAnswer, Site, open_site, session_token
from sessions_server.config import Config
from sessions_server.data_plane.names import basin_of
from sessions_server.http1.connection import Connection
from sessions_server.http1.intake import Intake
from sessions_server.route import Route
from sessions_server.table import ROUTES

PATIENCE = 20
"""Seconds, on a machine that has much else to do."""
SETTINGS = 4
"""The type of the frame that every server of HTTP/2 begins with."""
SOON = timedelta(seconds=0.2)
AUTHORIZED = f"Authorization: Bearer {ROOT_KEY}"
GET = "GET /healthz HTTP/1.1\r\nHost: x\r\n"
APPEND = f"POST /realtime/v1/sessions/chat-1/in/append HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}\r\n"
RECORDS = f"GET /realtime/v1/sessions/chat-1/in/records HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}\r\n\r\n"
SUBSCRIBE = f"GET /realtime/v1/sessions/chat-1/in HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}\r\n\r\n"
DIRECT_APPEND = (
    "POST /v1/streams/sessions%2Fchat-1%2Fin/records HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    f"S2-Basin: {basin_of(ENVIRONMENT)}\r\n{AUTHORIZED}\r\n"
)
PROTECTED = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@pytest.fixture(params=["memory"])
def profile(request: pytest.FixtureRequest) -> str:
    """One is enough: nothing here depends on a store."""
    name: str = request.param
    return name


@asynccontextmanager
async def served(tmp_path: Path, **settings: Any) -> AsyncIterator[Site]:
    """Serve with other *settings* than the defaults."""
    async with open_site("memory", tmp_path, Config(**settings)) as site:
        yield site


async def open_connections(site: Site) -> int:
    """Return how many there are, without the one that asks."""
    text = (await site.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).body.decode()
    found = re.search(r"^sessions_connections (\S+)$", text, re.MULTILINE)
    assert found is not None
    return int(float(found[1])) - 1


async def until_closed(site: Site) -> None:
    """Wait until the server has no connection any more."""
    deadline = time.monotonic() + PATIENCE
    while await open_connections(site):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


@asynccontextmanager
async def sent(
    site: Site, text: str | bytes, *, room: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection and send *text*; *room* is about how much may come before it is read."""
    raw = socket.socket()
    raw.setblocking(False)
    if room is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", site.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=room or 2**16)
    try:
        writer.write(text.encode() if isinstance(text, str) else text)
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def until_end(reader: asyncio.StreamReader) -> None:
    """Wait until the server has closed."""
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""


async def said(reader: asyncio.StreamReader) -> RawAnswer:
    """Read one answer."""
    async with asyncio.timeout(PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
    return RawAnswer(int(head[0].split()[1]), headers, body)


def check(answer: RawAnswer, status: int, code: str) -> None:
    """One shape for every error, with an id, and without a word of what was sent or of a driver."""
    assert (answer.status, answer.json["code"]) == (status, code), answer
    assert answer.json.keys() <= {"ok", "error", "code", "field"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert answer.headers["server"] == "sessions"
    assert answer.headers.items() >= {**PROTECTED, "cache-control": "no-store"}.items()
    assert "secret" not in answer.body.decode()


# --- Too large ----------------------------------------------------------------------------------


def headers(count: int, size: int) -> str:
    return "".join(f"X-{number}: {'secret' + 'h' * size}\r\n" for number in range(count))


@pytest.mark.parametrize(
    ("request_text", "status", "code"),
    [
        (f"GET /secret{'u' * 8200} HTTP/1.1\r\nHost: x\r\n\r\n", 414, "url_too_long"),
        (f"GET /healthz?secret={'u' * 8200} HTTP/1.1\r\nHost: x\r\n\r\n", 414, "url_too_long"),
        (f"{GET}{headers(1, 17_000)}\r\n", 431, "headers_too_large"),
        (f"{GET}{headers(1, 200_000)}\r\n", 431, "headers_too_large"),
        (f"{GET}{headers(5, 4000)}\r\n", 431, "headers_too_large"),
        (f"{GET}{headers(101, 1)}\r\n", 431, "headers_too_large"),
        (f"{GET}{headers(99, 1)}\r\n", 200, ""),
        (f"GET /healthz?{'u' * 8000} HTTP/1.1\r\nHost: x\r\n{headers(3, 5000)}\r\n", 200, ""),
        ("secret\r\n\r\n", 400, "malformed_request"),
        (f"{GET}secret line\r\n\r\n", 400, "malformed_request"),
        ("GET /healthz HTTP/1.1\r\nX: secret\r\n\r\n", 400, "malformed_request"),
        (f"{GET}X: secret\x00\r\n\r\n", 400, "malformed_request"),
        (f"{GET}Content-Length: -5\r\n\r\n", 400, "malformed_request"),
        (f"{GET}Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "malformed_request"),
        (f"{GET}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "malformed_request"),
        ("GET /healthz HTTP/7.3\r\nHost: x\r\n\r\n", 400, "malformed_request"),
    ],
    ids=[
        "path",
        "query",
        "one header",
        "one huge header",
        "all headers",
        "number of headers",
        "just so many headers",
        "both just short enough",
        "no request line",
        "no header",
        "no host",
        "U+0000",
        "negative length",
        "two lengths",
        "length and chunks",
        "unknown version",
    ],
)
@pytest.mark.parametrize("piece", [1_000_000, 3000])
async def test_what_is_too_large_or_no_http_is_refused_in_the_one_shape(
    site: Site, request_text: str, status: int, code: str, piece: int
) -> None:
    data = request_text.encode("latin-1")
    async with sent(site, data[:piece]) as (reader, writer):
        for start in range(piece, len(data), piece):
            await asyncio.sleep(0)
            writer.write(data[start : start + piece])
        answer = await said(reader)
        assert answer.status == status
        if status != 200:
            check(answer, status, code)
            await until_end(reader)


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.body], ids=lambda route: f"{route.method} {route.path}"
)
@pytest.mark.parametrize("opening", ["[", '{"a":'])
async def test_json_that_is_nested_deep_is_400_on_every_route_that_reads_json(
    site: Site, route: Route, opening: str
) -> None:
    assert route.cap is not None
    path = route.path.format(session="x", run="run_x", waitpoint="waitpoint_x", io="in")
    for depth in (70, 1000, route.cap // len(opening)):
        answer = await site.raw_call(route.method, path, (opening * depth).encode()[: route.cap])
        assert (answer.status, answer.json["field"]) == (400, "body"), answer


REFUSED = {
    "bad key": 401,
    "bad token": 401,
    "broken JSON": 400,
    "deep JSON": 400,
    "body over the cap": 413,
    "bomb": 413,
    "gzip that is cut short": 400,
    "large headers": 431,
    "long URL": 414,
    "unknown route": 404,
    "no HTTP": 400,
}


async def test_what_the_benchmark_floods_a_server_with_is_refused_as_it_should_be(site: Site) -> None:
    token = session_token(site, "chat-1")
    for kind, data in bad_requests.kinds(token).items():
        async with sent(site, data) as (reader, _), asyncio.timeout(PATIENCE):
            beginning = await reader.read(12)
        if kind == "HTTP/2 garbage":
            assert beginning[3] == SETTINGS
        else:
            assert (kind, int(beginning.split()[1])) == (kind, REFUSED[kind])


# --- Too slow -----------------------------------------------------------------------------------


@pytest.mark.parametrize("beginning", ["G", "GET /healthz HTTP/1.1\r\n", GET, f"{GET}\r\n{GET}"])
async def test_a_head_that_does_not_end_is_refused_and_its_connection_closed(tmp_path: Path, beginning: str) -> None:
    async with served(tmp_path, header_timeout=SOON) as site, sent(site, beginning) as (reader, writer):
        if beginning.count("Host") == 2:
            assert (await said(reader)).status == 200
            writer.write(b"X: y\r\n")
        answer = await said(reader)
        check(answer, 408, "request_timeout")
        assert answer.headers["connection"] == "close"
        await until_end(reader)


async def test_a_head_that_dribbles_has_no_more_time(tmp_path: Path) -> None:
    async with served(tmp_path, header_timeout=SOON) as site, sent(site, GET) as (reader, writer):
        answering = asyncio.create_task(said(reader))
        while not answering.done():
            writer.write(b"X: y\r\n")
            await asyncio.sleep(0.02)
        check(await answering, 408, "request_timeout")


@pytest.mark.parametrize("packed", ["", "Content-Encoding: gzip\r\n"])
async def test_a_body_that_does_not_come_is_refused(tmp_path: Path, packed: str) -> None:
    async with served(tmp_path, body_timeout=SOON) as site:
        await site.client().create("chat-1")
        async with sent(site, f"{APPEND}{packed}Content-Length: 100\r\n\r\n") as (reader, writer):
            writer.write(b"\x1f")
            check(await said(reader), 408, "request_timeout")
        assert await site.client().records("chat-1", "in") == []


async def test_a_body_of_a_direct_writer_that_does_not_come_is_refused_in_its_words(tmp_path: Path) -> None:
    async with served(tmp_path, body_timeout=SOON) as site:
        await site.client().create("chat-1")
        async with sent(site, DIRECT_APPEND + "Content-Length: 100\r\n\r\n{") as (reader, _):
            answer = await said(reader)
        assert (answer.status, answer.json["code"]) == (408, "request_timeout")


@pytest.mark.parametrize("asked", [RECORDS, SUBSCRIBE], ids=["a whole answer", "a stream"])
async def test_a_client_that_takes_nothing_of_its_answer_is_cut_off(tmp_path: Path, asked: str) -> None:
    async with served(tmp_path, slow_write=SOON) as site:
        client = site.client()
        await client.create("chat-1")
        for _ in range(12):
            assert (await client.append("chat-1", "x" * 1_000_000)).status == 200
        await client.http.close()
        async with sent(site, asked, room=4096):
            await until_closed(site)


async def test_a_client_that_takes_its_answer_slowly_gets_all_of_it(tmp_path: Path) -> None:
    async with served(tmp_path, slow_write=timedelta(seconds=2)) as site:
        client = site.client()
        await client.create("chat-1")
        for _ in range(12):  # the kernel holds some megabytes of them
            assert (await client.append("chat-1", "x" * 1_000_000)).status == 200
        async with sent(site, RECORDS, room=65_536) as (reader, _), asyncio.timeout(4 * PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            left = int(re.findall(rb"Content-Length: (\d+)", head)[0])
            while left:
                left -= len(await reader.readexactly(min(left, 100_000)))
                await asyncio.sleep(0.05)  # in all, three times as long as it may take nothing


async def test_a_connection_without_requests_is_closed(tmp_path: Path) -> None:
    async with served(tmp_path, idle_timeout=SOON) as site, sent(site, f"{GET}\r\n") as (reader, _):
        assert (await said(reader)).status == 200
        await until_end(reader)


# --- Too many -----------------------------------------------------------------------------------


async def test_a_connection_that_is_one_too_many_is_told_so_and_the_others_go_on(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=3) as site, AsyncExitStack() as stack:
        held = [await stack.enter_async_context(sent(site, f"{GET}\r\n")) for _ in range(3)]
        assert [(await said(reader)).status for reader, _ in held] == [200] * 3
        async with sent(site, f"{GET}\r\n") as (reader, _):
            answer = await said(reader)
            check(answer, 503, "too_many_connections")
            assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
            await until_end(reader)
        held[0][1].write(f"{GET}\r\n".encode())
        assert (await said(held[0][0])).status == 200
        held[1][1].close()
        deadline = time.monotonic() + PATIENCE
        while (answer := await site.raw(f"{GET}Connection: close\r\n\r\n".encode())).status == 503:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert answer.status == 200


@pytest.fixture
def without_garbage_collection() -> Iterator[None]:
    """A server looks for garbage in circles rarely, so what ends must not be in one."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_a_connection_that_has_ended_leaves_nothing_behind(without_garbage_collection: None, site: Site) -> None:
    await site.client().create("chat-1")
    before = sum(isinstance(each, Connection | Intake) for each in gc.get_objects())
    for text in (
        f"{GET}Connection: close\r\n\r\n",
        RECORDS.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
        "no HTTP\r\n\r\n",
    ):
        for _ in range(5):
            await site.raw(text.encode())
    async with sent(site, SUBSCRIBE) as (reader, _):
        await reader.readuntil(b"event: ping")
    deadline = time.monotonic() + PATIENCE
    while sum(isinstance(each, Connection | Intake) for each in gc.get_objects()) > before:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


# --- Old connections ----------------------------------------------------------------------------


async def test_a_subscription_that_is_old_ends_between_frames_and_nothing_is_lost_over_its_ends(tmp_path: Path) -> None:
    count = 300
    async with served(tmp_path, connection_age=SOON) as site:
        client = site.client()
        await client.create("chat-1")

        async def write() -> None:
            for number in range(count):
                assert (await client.append("chat-1", str(number))).status == 200
                await asyncio.sleep(0.005)

        writing = asyncio.create_task(write())
        seen, last, ends = list[str](), -1, 0
        async with asyncio.timeout(4 * PATIENCE):
            while len(seen) < count:
                async with client.subscribe("chat-1", "in", last if seen else None, window=600) as (_, frames):
                    words = []
                    async for frame in frames:  # fails at a frame that is not whole
                        words.append(frame.data)
                        seen += [json.loads(record["body"])["data"] for record in frame.records]
                        last = max([last, *(record["seq_num"] for record in frame.records)])
                assert words[-1] == "[DONE]"
                ends += 1
        await writing
        assert seen == [str(number) for number in range(count)]
        assert ends > 2


async def test_an_old_connection_takes_no_further_request(tmp_path: Path) -> None:
    async with served(tmp_path, connection_age=SOON) as site, sent(site, f"{GET}\r\n") as (reader, writer):
        deadline = time.monotonic() + PATIENCE
        while "connection" not in (answer := await said(reader)).headers:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
            writer.write(f"{GET}\r\n".encode())
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        await until_end(reader)


async def test_a_server_that_is_about_to_stop_keeps_no_connection(site: Site) -> None:
    await site.server.drain()
    async with sent(site, f"{GET}\r\n") as (reader, _):
        assert (await said(reader)).headers["connection"] == "close"


# --- What every answer says ---------------------------------------------------------------------

EVERY: list[tuple[str, str, int]] = [
    ("GET", "/healthz", 200),
    ("HEAD", "/healthz", 200),
    ("OPTIONS", "/api/v1/sessions", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/metrics", 200),
    ("GET", "/api/v1/sessions", 200),
    ("GET", "/api/v1/sessions/", 301),
    ("POST", "/api/v1/sessions", 400),
    ("GET", "/api/v1/sessions/none", 404),
    ("GET", "/nowhere", 404),
    ("DELETE", "/api/v1/sessions", 405),
    ("GET", "/realtime/v1/sessions/chat-1/in", 200),
    ("HEAD", "/realtime/v1/sessions/chat-1/in", 200),
    ("PUT", "/realtime/v1/sessions/chat-1/in", 202),
    ("POST", "/api/v1/auth/jwt/claims", 200),
    ("GET", "/v1/streams/sessions%2Fchat-1%2Fin/records/tail", 400),
    ("GET", "/v1/nothing", 404),
    ("OPTIONS", "/v1/streams/x/records", 200),
    ("GET", "/", 200),
    ("GET", "/page/agents", 200),
    ("OPTIONS", "/page/agents", 204),
    ("POST", "/page/sessions", 403),
]


async def ask(site: Site, method: str, path: str, **more: str) -> tuple[int, dict[str, str]]:
    """Return status and headers of an answer, whose body is not waited for."""
    sent = {"Authorization": f"Bearer {ROOT_KEY}", **{name.replace("_", "-"): value for name, value in more.items()}}
    async with site.http.request(method, site.address + path, headers=sent, allow_redirects=False) as response:
        return response.status, {name.lower(): value for name, value in response.headers.items()}


@pytest.mark.parametrize(("method", "path", "status"), EVERY)
async def test_every_answer_has_the_callers_request_id_and_tells_browsers_to_be_careful(
    site: Site, method: str, path: str, status: int
) -> None:
    await site.client().create("chat-1")
    answered, headers = await ask(site, method, path, X_Request_Id="mine-1")
    assert answered == status
    assert headers["x-request-id"] == "mine-1"
    assert headers["server"] == "sessions"
    assert headers.items() >= PROTECTED.items()
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] in ("no-store", "no-cache", "no-cache, no-transform")
    _, headers = await ask(site, method, path, X_Request_Id="not <mine>")
    assert "<" not in headers["x-request-id"]


async def test_what_holds_a_token_is_kept_by_nobody(client: Client) -> None:
    created = await client.create("chat-1")
    minted = await client.call("POST", "/api/v1/auth/public-tokens", {"scopes": ["read:sessions:chat-1"]})
    direct = await client.call("PUT", "/realtime/v1/sessions/chat-1/in")
    for answer in (created, minted, direct):
        assert answer.status < 300
        assert answer.headers["Cache-Control"] == "no-store"


async def test_the_access_log_has_a_line_for_every_answer_by_its_id_and_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sessions.access")
    ids = set()
    async with served(tmp_path, access_log=True) as site:
        await site.client().create("chat-1")
        caplog.clear()
        for method, path, _ in EVERY:
            _, headers = await ask(site, method, f"{path}?token=secret", Cookie="secret", X_Part_Id="secret")
            ids.add(headers["x-request-id"])
        body = b"secret"
        refused = [
            await site.raw(f"{APPEND}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body),
            await site.raw(b"secret / HTTP/1.1\r\nAuthorization: Bearer secret\r\n\r\n"),
            await site.raw(f"GET /{'secret' * 2000} HTTP/1.1\r\nHost: x\r\n\r\n".encode()),
        ]
        ids |= {answer.headers["x-request-id"] for answer in refused}
    lines = [vars(record) for record in caplog.records if record.name == "sessions.access"]
    assert len(ids) == len(EVERY) + 3
    assert {line["request_id"] for line in lines} == ids
    assert "secret" not in str([[line[name] for name in ("method", "path", "status")] for line in lines])
    assert ROOT_KEY not in str(lines)
