"""Values that once were answered with 500, or would have been: what fuzzing found, each with its input."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from harness.client import Client
from harness.direct import call, own_credentials
from harness.http2 import Answer, connect_raw
from harness.in_process import ENVIRONMENT, ROOT_KEY, Site
from sessions_core.domain.channel import Channel, Io, NewRecord
from sessions_core.domain.ids import AddressingKey

PATIENCE = 10

on_one_profile = pytest.mark.parametrize("profile", ["memory"])


@pytest.mark.parametrize("number", ["1e999", "-1E999", "NaN", "Infinity"])
@on_one_profile
async def test_a_forged_mark_beside_a_number_that_cannot_be_written_again_is_refused(
    client: Client, number: str
) -> None:
    await client.create("chat-1")
    answer = await client.append("chat-1", f'{{"payload":{{"actionSource":"webhook","n":{number}}}}}')
    assert (answer.status, answer.body["code"], answer.body["field"]) == (400, "invalid_request", "body")
    assert await client.records("chat-1", "in") == []


@pytest.mark.parametrize(
    "body",
    ['{"data":1e999,"id":"x"}', '{"data":[NaN],"id":"x"}', f'{{"data":{"[" * 970}{"]" * 970},"id":"x"}}'],
    ids=lambda body: body[:20],
)
@on_one_profile
async def test_an_envelope_that_cannot_be_written_again_is_none(client: Client, site: Site, body: str) -> None:
    await client.create("chat-1")
    sent = json.dumps({"records": [{"body": body}]}).encode()
    answer = await call(site, "POST", own_credentials(way=Io.IN), sent, content_type="application/json")
    assert (answer.status, answer.code) == (422, "invalid")
    assert await client.records("chat-1", "in") == []


@pytest.mark.parametrize("depth", range(930, 1010, 5))
@on_one_profile
async def test_nesting_of_any_depth_is_taken_or_refused(client: Client, depth: int) -> None:
    run = (await client.create("chat-1", task="elsewhere")).body["runId"]
    await client.call("POST", f"/engine/v1/runs/{run}/attempts/start", {"attempt": 1})
    nested = "[" * depth + "]" * depth
    for method, path, body in (
        ("POST", f"/engine/v1/runs/{run}/out/append", f'{{"records":[{{"data":{nested}}}]}}'),
        ("POST", f"/engine/v1/runs/{run}/attempts/complete", f'{{"status":"CRASHED","x":{nested}}}'),
        ("POST", "/api/v1/auth/public-tokens", f'{{"scopes":[],"realtime":{{"a":{nested}}}}}'),
        ("PATCH", "/api/v1/sessions/chat-1", f'{{"metadata":{{"a":{nested}}}}}'),
        ("POST", "/realtime/v1/sessions/chat-1/in/append", f'{{"payload":{{"actionSource":"webhook","n":{nested}}}}}'),
    ):
        answer = await client.call(method, path, body, X_Session_Epoch="1")
        assert answer.status in (200, 400), (path, answer)
    assert (await client.call("GET", "/realtime/v1/sessions/chat-1/out/records")).status == 200


@on_one_profile
async def test_a_record_whose_headers_are_no_utf8_can_be_read(client: Client, site: Site) -> None:
    await client.create("chat-1")
    out = Channel(ENVIRONMENT, AddressingKey("chat-1"), Io.OUT)
    log = site.sessions.ports.log
    strange = NewRecord(b"", (("a", "\ud800"), ("\udfff", "b")))
    await log.append(out, [strange], guard=(await log.tail(out)).guard)
    [record] = await client.records("chat-1", "out")
    assert record["headers"] == [["a", "?"], ["?", "b"]]
    async with client.subscribe("chat-1") as (_, frames):
        assert (await anext(frames)).records[0]["headers"] == [["a", "?"], ["?", "b"]]


async def ask_over_http2(site: Site, method: bytes, path: bytes, **more: bytes) -> Answer:
    """Make a request of bytes that no library would send."""
    async with connect_raw(site.port) as client, asyncio.timeout(PATIENCE):
        fields: dict[bytes, bytes] = {b":method": method, b":path": path, b":scheme": b"http", b":authority": b"x"}
        fields |= {name.encode().replace(b"_", b"-"): value for name, value in more.items()}
        fields |= {b":authority": fields.pop(b"authority")} if b"authority" in fields else {}
        fields[b"authorization"] = f"Bearer {ROOT_KEY}".encode()
        return await client.ask(list(fields.items()))


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/streams/\xff/records/tail",
        b"/v1/streams/\xff/records?seq_num=\xff",
        b"/api/v1/sessions/\xff",
        b"/api/v1/sessions/\xff/",
        b"/api/v1/sessions/a/?\xff",
        b"/api/v1/sessions?filter%5Btype%5D=\xff",
        b"/realtime/v1/sessions/\xed\xa0\x80/in/records",
        b"/page/\xff",
        b"/\xff",
    ],
)
@on_one_profile
async def test_a_path_of_http_2_that_is_no_ascii_is_refused(site: Site, path: bytes) -> None:
    answer = await ask_over_http2(site, b"GET", path)
    assert answer.status == 400
    assert {"error", "code"} <= answer.json.keys() or {"code", "message"} == answer.json.keys()


@pytest.mark.parametrize(
    "line", [b"GET /healthz", b"GET /healthz HTTP/0.9", b"PUT /r00", b"CONNECT server", b"GET /healthz HTTP/9.9"]
)
@on_one_profile
async def test_a_version_before_1_0_is_refused_in_words_of_1_0(site: Site, line: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(line + b"\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        assert (await reader.readline()).startswith(b"HTTP/1.0 400 ")
        assert b'"malformed_request"' in await reader.read()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("host", [b"\xff", b"a\xffb:80", b"]:9[", b"a b", b"\x7f"])
@on_one_profile
async def test_a_host_that_is_none_gives_no_address(client: Client, site: Site, host: bytes) -> None:
    await client.create("chat-1")
    request = (
        f"PUT /realtime/v1/sessions/chat-1/out HTTP/1.1\r\nAuthorization: Bearer {ROOT_KEY}\r\nConnection: close\r\n"
    )
    answer = await site.raw(request.encode() + b"Host: " + host + b"\r\n\r\n")
    assert (answer.status, answer.json["code"]) in ((400, "invalid_request"), (400, "malformed_request"))
    over_http2 = await ask_over_http2(site, b"PUT", b"/realtime/v1/sessions/chat-1/out", authority=host)
    assert over_http2.status == 400


@pytest.mark.parametrize("value", [b"\xff", b"\xed\xa0\x80", b"\xc3\xa9", b"a\tb"])
@pytest.mark.parametrize(
    "name", ["last_event_id", "x_part_id", "x_session_epoch", "x_request_id", "origin", "timeout_seconds", "s2_basin"]
)
@on_one_profile
async def test_headers_of_any_bytes_are_read_or_refused_over_either_version(
    client: Client, site: Site, name: str, value: bytes
) -> None:
    await client.create("chat-1")
    header = name.replace("_", "-").encode()
    for path in ("/realtime/v1/sessions/chat-1/in/records", "/v1/streams/sessions%2Fchat-1%2Fin/records/tail"):
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ROOT_KEY}\r\nConnection: close\r\n"
        answer: Any = await site.raw(head.encode() + header + b": " + value + b"\r\n\r\n")
        assert answer.status < 500
        assert (await ask_over_http2(site, b"GET", path.encode(), **{name: value})).status < 500
