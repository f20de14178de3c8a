"""Bodies that are no JSON, too large, packed or broken, and heads that are odd or no HTTP."""

from __future__ import annotations

import asyncio
import gzip
from io import BytesIO
from typing import Any

import pytest

from harness.client import Client
from harness.errors import check
from harness.in_process import ROOT_KEY, Site

# On one profile: what is tried here is refused before any store is asked.
on_one_profile = pytest.mark.parametrize("profile", ["memory"])


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b"\xff\xfe",
        b'{"type":"\xff"}',
        b'{"type":"\\ud800"}',
        b"[" * 30_000,
        b'{"type":' + b"[" * 30_000,
        b'{"type":1e999}',
        b'{"type":NaN}',
        b"{} {}",
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda body: repr(body[:20]),
)
@on_one_profile
async def test_a_body_that_is_no_json_is_400(client: Client, site: Site, body: bytes) -> None:
    check(await client.call("POST", "/api/v1/sessions", body), 400)
    assert await site.count_sessions() == 0


@pytest.mark.parametrize("body", [b"null", b"[]", b'"x"', b"0", b"false"])
@on_one_profile
async def test_a_body_that_is_no_object_is_400(client: Client, body: bytes) -> None:
    check(await client.call("POST", "/api/v1/sessions", body), 400, "body")


async def test_an_empty_body_is_an_empty_object(client: Client) -> None:
    check(await client.call("POST", "/api/v1/sessions"), 400)
    await client.create("chat-1")
    assert (await client.call("PATCH", "/api/v1/sessions/chat-1")).status == 200


@pytest.mark.parametrize(
    ("path", "cap"),
    [
        ("/api/v1/sessions", 32 * 1024),
        ("/api/v1/sessions/chat-1/close", 1024),
        ("/api/v1/sessions/chat-1/end-and-continue", 1024),
        ("/api/v1/runs/run_x/session-streams/wait", 10 * 1024),
        ("/realtime/v1/sessions/chat-1/in/append", 1_048_576),
        ("/realtime/v1/sessions/chat-1/out/append", 1_048_576),
        ("/engine/v1/runs/run_x/attempts/start", 1024),
        ("/engine/v1/runs/run_x/attempts/complete", 8 * 1024),
        ("/engine/v1/runs/run_x/out/append", 1_048_576),
    ],
)
async def test_a_body_over_the_cap_is_413_with_or_without_its_length(
    client: Client, site: Site, path: str, cap: int
) -> None:
    await client.create("chat-1")
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "Origin": "https://app.test"}
    body = b'{"x":"' + b"x" * cap + b'"}'

    async def pieces() -> Any:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    for data in (BytesIO(body), pieces()):
        async with client.http.post(client.address + path, data=data, headers=headers) as response:
            assert response.status == 413
            assert response.headers["Access-Control-Allow-Origin"] == "https://app.test"
            assert {"error", "code"} <= (await response.json()).keys()
    assert await client.records("chat-1", "in") == []
    assert await client.records("chat-1", "out") == []


async def test_a_length_that_is_too_large_is_refused_before_the_body_comes(site: Site) -> None:
    head = f"POST /realtime/v1/sessions/x/in/append HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ROOT_KEY}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(head.encode() + b"Content-Length: 2000000\r\n\r\n")
    assert b" 413 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_a_body_without_length_is_taken(client: Client) -> None:
    await client.create("chat-1")

    async def pieces() -> Any:
        yield b"hel"
        yield b"lo"

    headers = {"Authorization": f"Bearer {ROOT_KEY}"}
    path = f"{client.address}/realtime/v1/sessions/chat-1/in/append"
    async with client.http.post(path, data=pieces(), headers=headers) as response:
        assert response.status == 200
    assert [record["data"] for record in await client.records("chat-1", "in")] == ["hello"]


async def test_a_compressed_body_counts_as_it_is_unpacked(client: Client) -> None:
    await client.create("chat-1")
    path = f"{client.address}/realtime/v1/sessions/chat-1/in/append"
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "Content-Encoding": "gzip"}
    for data, status in ((gzip.compress(b"hi"), 200), (gzip.compress(b"x" * 5_000_000), 413), (b"no gzip", 400)):
        async with client.http.post(path, data=data, headers=headers) as response:
            assert response.status == status
    assert [record["data"] for record in await client.records("chat-1", "in")] == ["hi"]


@pytest.mark.parametrize("body", [b"\xff", b"a\xc3", b"\xed\xa0\x80"])
async def test_an_append_that_is_no_utf8_is_400(client: Client, body: bytes) -> None:
    await client.create("chat-1")
    answer = await client.append("chat-1", body)  # type: ignore[arg-type]
    check(answer, 400, "body")
    assert answer.body["ok"] is False
    assert await client.records("chat-1", "in") == []


@pytest.mark.parametrize("request_line", [b"nonsense\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n"])
@on_one_profile
async def test_what_is_no_http_is_400(site: Site, request_line: bytes) -> None:
    assert (await site.raw(request_line)).status == 400


@pytest.mark.parametrize(
    "header",
    [b"Origin: \xff", b"Access-Control-Request-Headers: \xff", b"X-Request-Id: a\xff", b"X-Request-Id: " + b"x" * 999],
)
@pytest.mark.parametrize("method", [b"GET", b"OPTIONS"])
@on_one_profile
async def test_odd_headers_do_no_harm(site: Site, header: bytes, method: bytes) -> None:
    request = method + b" /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header + b"\r\n\r\n"
    answer = await site.raw(request)
    assert answer.status == 200
    assert len(answer.headers.get("x-request-id", "")) < 200
