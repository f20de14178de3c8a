"""What the data plane says to requests that are wrong or broken: S2's error, and nothing is stored."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import s2_sdk._generated.s2.v1.s2_pb2 as pb
import zstandard
from yarl import URL

from harness.client import Client
from harness.direct import BASIN, SESSION, Answer, append_input, assert_empty, call, own_credentials
from harness.http2 import connect
from harness.in_process import ROOT_KEY, Site, open_site
from sessions_adapters.profiles import EMBEDDED
from sessions_core.domain.channel import Io
from sessions_server.config import Config
from sessions_server.data_plane.frames import encode_frame

pytestmark = pytest.mark.parametrize("profile", [EMBEDDED])
PROTOBUF = "application/protobuf"
MIB = 1024 * 1024


def command(name: bytes, body: bytes, *more: bytes) -> bytes:
    message = pb.AppendInput()
    record = message.records.add(body=body)
    record.headers.add(name=b"", value=name)
    for other in more:
        message.records.add(body=other)
    data: bytes = message.SerializeToString()
    return data


UNARY = [
    ("application/json", b"", 400, "bad_json"),
    ("application/json", b"{", 400, "bad_json"),
    ("application/json", b'{"records":[{"body":"\xff"}]}', 400, "bad_json"),
    ("application/json", b'{"records":[]}', 422, "invalid"),
    ("application/json", b'{"records":[{"headers":[["",""]]}]}', 422, "invalid"),
    ("application/json", json.dumps({"records": [{"body": "x" * MIB}]}).encode(), 422, "invalid"),
    ("application/json", json.dumps({"records": [{}] * 1001}).encode(), 422, "invalid"),
    ("application/json", b" " * (4 * MIB + 1), 422, "invalid"),
    ("text/plain", b"hello", 400, "bad_json"),
    (PROTOBUF, b"", 422, "invalid"),
    (PROTOBUF, b"hello", 400, "bad_proto"),
    (PROTOBUF, append_input(b"x" * 300)[:-1], 400, "bad_proto"),
    (PROTOBUF, append_input(b"x" * MIB), 422, "invalid"),
    (PROTOBUF, append_input(*[b""] * 1001), 422, "invalid"),
    (PROTOBUF, append_input(b"x", fencing_token="x" * 37), 422, "invalid"),
    (PROTOBUF, append_input(b'{"data":1,"id":"~sessions:session-closed"}'), 422, "invalid"),
    (PROTOBUF, append_input(b'{"data":1,"id":"%b"}' % (b"x" * 257)), 422, "invalid"),
    (PROTOBUF, command(b"trim", b"7"), 422, "invalid"),
    (PROTOBUF, command(b"drop", b""), 422, "invalid"),
    (PROTOBUF, command(b"trim", bytes(8), b"and data"), 422, "invalid"),
    (PROTOBUF, command(b"fence", b"mine"), 403, "permission_denied"),
]


@pytest.mark.parametrize(("content_type", "body", "status", "code"), UNARY, ids=range(len(UNARY)))
async def test_a_body_that_is_wrong_is_refused(
    chat: Client, site: Site, content_type: str, body: bytes, status: int, code: str
) -> None:
    answer = await call(site, "POST", own_credentials(), body, content_type=content_type)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["Content-Type"] == "application/json"
    assert isinstance(answer.json["message"], str)
    await assert_empty(chat)


MARKED = '{"payload":{"actionSource":"webhook","text":"%s"}}'
ON_IN = [
    b"hello",
    b"[]",
    b'{"id":"a"}',
    b'{"data":NaN,"id":"a"}',
    b'{"data":1e999,"id":"a"}',
    b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b',"id":"a"}',
    b'{ "data":"spaced","id":"~sessions:session-closed"}',
    json.dumps({"id": "~sessions:session-closed", "data": MARKED % "marked"}).encode(),
]


@pytest.mark.parametrize("body", ON_IN, ids=range(len(ON_IN)))
async def test_a_record_of_in_that_is_no_message_is_refused(chat: Client, site: Site, body: bytes) -> None:
    answer = await call(site, "POST", own_credentials(way=Io.IN), append_input(body), content_type=PROTOBUF)
    assert (answer.status, answer.code) == (422, "invalid")
    await assert_empty(chat)


async def test_messages_without_an_id_are_all_kept_though_a_mark_is_removed_from_them(chat: Client, site: Site) -> None:
    bodies = [json.dumps({"data": MARKED % text}).encode() for text in ("one", "two")]
    for body in bodies:
        answer = await call(site, "POST", own_credentials(way=Io.IN), append_input(body), content_type=PROTOBUF)
        assert answer.status == 200
    stored = [json.loads(record["data"]) for record in await chat.records("chat-1", "in")]
    assert stored == [{"payload": {"text": "one"}}, {"payload": {"text": "two"}}]


BATCH = append_input(b"x" * 2000)
ENCODED = [
    ("br", BATCH, "bad_header"),
    ("gzip, gzip", BATCH, "bad_header"),
    ("gzip", BATCH, "bad_frame"),
    ("gzip", gzip.compress(BATCH)[:-1], "bad_frame"),
    ("gzip", gzip.compress(bytes(64 * MIB)), "bad_frame"),
    ("zstd", BATCH, "bad_frame"),
    ("zstd", zstandard.compress(BATCH)[:-1], "bad_frame"),
    ("zstd", zstandard.compress(bytes(64 * MIB)), "bad_frame"),
    ("zstd", zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 * MIB)), "bad_frame"),
]


@pytest.mark.parametrize(("encoding", "body", "code"), ENCODED, ids=range(len(ENCODED)))
async def test_a_body_that_cannot_be_decompressed_is_refused(
    chat: Client, site: Site, encoding: str, body: bytes, code: str
) -> None:
    given = own_credentials()
    path = f"/v1/streams/{quote(given.stream, safe='')}/records"
    sent = {"authorization": f"Bearer {given.token}", "s2-basin": BASIN, "content-type": PROTOBUF}
    async with connect(site.port) as client:
        answer = await client.call("POST", path, body, [*sent.items(), ("content-encoding", encoding)])
    assert (answer.status, answer.json["code"]) == (400, code)
    await assert_empty(chat)


GOOD = encode_frame(append_input(b"good"))
SESSIONS = [
    (b"\x00", "bad_frame"),
    (b"\x00\x00\x00", "bad_frame"),
    (GOOD[:-1], "bad_frame"),
    (b"\xff\xff\xff\x00" + bytes(100), "bad_frame"),
    (b"\x00\x00\x03\x80\x01\xf4", "bad_frame"),
    (b"\x00\x00\x02\x01x", "bad_frame"),
    (b"\x00\x00\x05\x20nope", "bad_frame"),
    (b"\x00\x00\x05\x60nope", "bad_frame"),
    (encode_frame(b"hello"), "bad_frame"),
    (encode_frame(append_input(b"x" * MIB)), "invalid"),
    (encode_frame(append_input()), "invalid"),
    (encode_frame(command(b"fence", b"mine")), "permission_denied"),
]


@pytest.mark.parametrize(("body", "code"), SESSIONS, ids=range(len(SESSIONS)))
async def test_a_session_ends_with_the_error_of_its_first_bad_frame_and_keeps_what_came_before(
    chat: Client, site: Site, body: bytes, code: str
) -> None:
    answer = await call(site, "POST", own_credentials(), body, content_type=SESSION)
    assert answer.status == 200
    assert (answer.frames.payloads, answer.frames.error["code"]) == ([], code)
    await assert_empty(chat)
    after = await call(site, "POST", own_credentials(), GOOD + GOOD + body, content_type=SESSION)
    assert (len(after.frames.payloads), after.frames.error["code"]) == (2, code)
    assert [record["seqNum"] for record in await chat.records("chat-1", "out")] == [0, 1]


async def test_of_batches_that_came_together_those_before_a_refused_one_are_acknowledged(
    chat: Client, site: Site
) -> None:
    refused = encode_frame(append_input(b"no", match_seq_num=7))
    fenced = encode_frame(append_input(b"no", fencing_token="live:9"))
    for before, (bad, error) in enumerate(
        ((refused, {"seq_num_mismatch": 1}), (fenced, {"fencing_token_mismatch": ""}))
    ):
        frames = (await call(site, "POST", own_credentials(), GOOD + bad + GOOD, content_type=SESSION)).frames
        assert (len(frames.payloads), frames.status, frames.error) == (1, 412, error)
        assert len(await chat.records("chat-1", "out")) == before + 1


async def test_a_body_that_breaks_off_stores_nothing_of_its_last_frame(chat: Client, site: Site) -> None:
    given = own_credentials()
    target = f"/v1/streams/{quote(given.stream, safe='')}/records"
    head = (
        f"POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {given.token}\r\ns2-basin: {given.basin}\r\n"
        f"Content-Type: {SESSION}\r\nContent-Length: {2 * len(GOOD)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(head.encode() + GOOD + GOOD[:-2])
    async with asyncio.timeout(10):
        while len(await chat.records("chat-1", "out")) < 1:
            await asyncio.sleep(0.01)
    writer.transport.abort()
    del reader
    assert len(await chat.records("chat-1", "out")) == 1


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("?seq_num=x", {}, 400, "bad_query"),
        ("?seq_num=0&timestamp=0", {}, 422, "invalid"),
        ("?seq_num=0", {"s2_format": "hex"}, 400, "bad_header"),
        ("?seq_num=0", {"s2_encryption_key": "abc"}, 400, "bad_header"),
        ("?seq_num=0", {"accept": "text/event-stream", "last_event_id": "x"}, 400, "bad_header"),
        ("?seq_num=0", {"s2_basin": ""}, 400, "bad_header"),
    ],
)
async def test_a_read_that_makes_no_sense_is_refused(
    chat: Client, site: Site, query: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await call(site, "GET", own_credentials(), None, query=query, **headers)
    assert (answer.status, answer.code) == (status, code)


async def test_who_takes_no_acks_is_not_read_on(chat: Client, site: Site) -> None:
    given, count = own_credentials(), 64
    path = f"/v1/streams/{quote(given.stream, safe='')}/records"
    headers = [("authorization", f"Bearer {given.token}"), ("s2-basin", BASIN), ("content-type", SESSION)]
    async with asyncio.timeout(20), connect(site.port, window=100) as client:
        client.gives_window = False
        session = client.begin("POST", path, headers)
        sending = asyncio.create_task(session.send(encode_frame(append_input(b"x" * 20_000)) * count, end=True))
        while client.connection.local_flow_control_window(session.id) or session.received < 100:
            assert not sending.done(), "everything was taken"
            await asyncio.sleep(0.01)
        await client.call_ping()
        assert len(await chat.records("chat-1", "out")) < count
        client.gives_window = True
        client.give(session.id, 10_000)
        await sending
        answer = Answer(200, {}, (await session.answer()).body)
    assert (len(answer.frames.payloads), answer.frames.error) == (count, None)
    assert len(await chat.records("chat-1", "out")) == count


async def test_oversized_frames_are_refused_before_they_have_come(chat: Client, site: Site) -> None:
    given = own_credentials()
    seen = 0

    async def endless() -> Any:
        nonlocal seen
        yield (2 * MIB + 1).to_bytes(3, "big") + b"\x00"
        for _ in range(1000):
            seen += 65536
            yield bytes(65536)

    url = URL(f"{site.address}/v1/streams/{quote(given.stream, safe='')}/records", encoded=True)
    headers = {"authorization": f"Bearer {given.token}", "s2-basin": BASIN, "content-type": SESSION}
    async with site.http.post(url, data=endless(), headers=headers) as response:
        assert response.status == 200
        data = await response.content.read(200)
        assert b"bad_frame" in data
    assert seen < 1000 * 65536
    await assert_empty(chat)


@pytest.mark.parametrize("segment", ["%ff", "", "x" * 7_000])
async def test_names_that_are_none_are_refused(site: Site, segment: str) -> None:
    url = URL(f"{site.address}/v1/streams/{segment}/records/tail", encoded=True)
    headers = {"authorization": f"Bearer {ROOT_KEY}", "s2-basin": BASIN}
    async with site.http.get(url, headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "bad_path")


async def test_the_value_of_a_trim_may_be_any(chat: Client, site: Site) -> None:
    await call(site, "POST", own_credentials(), GOOD * 3, content_type=SESSION)
    for first in (2**64 - 1, 2**63, 0):
        body = command(b"trim", struct.pack(">Q", first))
        answer = await call(site, "POST", own_credentials(), body, content_type=PROTOBUF)
        assert answer.status == 200, answer
    found = await call(site, "GET", own_credentials(), query="?seq_num=0")
    assert found.json["records"][0]["seq_num"] >= 3


async def test_a_trim_with_a_condition_on_the_seq_is_refused(chat: Client, site: Site) -> None:
    message = pb.AppendInput(match_seq_num=0)
    message.records.add(body=bytes(8)).headers.add(name=b"", value=b"trim")
    answer = await call(site, "POST", own_credentials(), message.SerializeToString(), content_type=PROTOBUF)
    assert (answer.status, answer.code) == (422, "invalid")
    await assert_empty(chat)


async def test_a_frame_that_has_begun_has_to_come_but_a_session_may_be_silent(profile: str, tmp_path: Path) -> None:
    config = Config(body_timeout=timedelta(milliseconds=200))
    async with asyncio.timeout(20), open_site(profile, tmp_path, config) as site, connect(site.port) as client:
        assert (await site.client().create("chat-1")).status == 201
        given = own_credentials()
        path = f"/v1/streams/{quote(given.stream, safe='')}/records"
        headers = [("authorization", f"Bearer {given.token}"), ("s2-basin", BASIN), ("content-type", SESSION)]
        silent, slow = (client.begin("POST", path, headers) for _ in range(2))
        frame = encode_frame(append_input(b"x" * 100))
        await slow.send(frame + frame[:50])
        ended = Answer(200, {}, (await slow.answer()).body).frames
        await silent.send(frame, end=True)
        answered = Answer(200, {}, (await silent.answer()).body).frames
    assert (len(ended.payloads), ended.status, ended.error["code"]) == (1, 408, "request_timeout")
    assert (len(answered.payloads), answered.error) == (1, None)
