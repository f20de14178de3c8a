"""What is held of bodies and frames that have not come whole has a limit, whatever route they are for."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final
from urllib.parse import quote

import attrs
import pytest
import s2_sdk._generated.s2.v1.s2_pb2 as pb

from harness import direct
from harness.direct import BASIN, SESSION, own_credentials
from harness.http2 import ClientStream, connect
from harness.in_process import OTHER_KEY, ROOT_KEY, RawAnswer, Site, session_token
from harness.limits import Opened, refused
from harness.sockets import AUTHORIZED, GET, PATIENCE, said, sent
from sessions_server.config import Config
from sessions_server.data_plane.frames import encode_frame
from sessions_server.limits.unfinished_bytes import REQUEST_BYTES, SMALL_BYTES, UnfinishedBytes

PACKED: Final = gzip.compress(b"x" * SMALL_BYTES)
HALF: Final = PACKED[:-1]
HALF_BYTES: Final = REQUEST_BYTES + len(HALF)
"""What a request counts for whose body is there but for its last byte."""
WHOLE_BYTES: Final = HALF_BYTES + 1
APPEND: Final = "/realtime/v1/sessions/chat-1/in/append"
CREATE: Final = b'{"type":"chat.agent","taskIdentifier":"t","triggerConfig":{"basePayload":{}},"externalId":"chat-1"}'
GZIP: Final = {"content_encoding": "gzip"}
PROTOBUF: Final = "application/protobuf"
RECORDS: Final = f"/v1/streams/{quote(own_credentials().stream, safe='')}/records"


@attrs.frozen
class Http1Request:
    """A request whose body comes when the test says so."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")

    async def leave(self) -> None:
        self.writer.transport.abort()

    async def answer(self) -> RawAnswer:
        return await said(self.reader)


@attrs.frozen
class Http2Request:
    """The same."""

    stream: ClientStream

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def end(self) -> None:
        await self.stream.end()

    async def leave(self) -> None:
        self.stream.reset()

    async def answer(self) -> RawAnswer:
        answer = await self.stream.answer()
        return RawAnswer(answer.status, answer.headers, answer.body)


Slow = Http1Request | Http2Request
Begin = Callable[..., Awaitable[Slow]]


Over = Callable[[Site], AbstractAsyncContextManager[Begin]]


@asynccontextmanager
async def over_http1(site: Site) -> AsyncIterator[Begin]:
    async def begin(
        path: str = APPEND, credential: str | None = ROOT_KEY, method: str = "POST", **headers: str
    ) -> Slow:
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", "transfer-encoding: chunked"]
        lines += [f"{name}: {value}" for name, value in headers_of(credential, headers)]
        return Http1Request(*await stack.enter_async_context(sent(site, "\r\n".join(lines) + "\r\n\r\n")))

    async with AsyncExitStack() as stack:
        yield begin


@asynccontextmanager
async def over_http2(site: Site) -> AsyncIterator[Begin]:
    async def begin(
        path: str = APPEND, credential: str | None = ROOT_KEY, method: str = "POST", **headers: str
    ) -> Slow:
        client = await stack.enter_async_context(connect(site.port))
        return Http2Request(client.begin(method, path, headers_of(credential, headers)))

    async with AsyncExitStack() as stack:
        yield begin


def headers_of(credential: str | None, more: dict[str, str]) -> list[tuple[str, str]]:
    given = [("s2-basin", BASIN), *((name.replace("_", "-"), value) for name, value in more.items())]
    return given if credential is None else [*given, ("authorization", f"Bearer {credential}")]


@pytest.fixture(params=[over_http1, over_http2], ids=["HTTP/1.1", "HTTP/2"])
def over(request: pytest.FixtureRequest) -> Over:
    """Begins requests to a site over each version of HTTP, each on a connection of its own."""
    way: Over = request.param
    return way


def unfinished(site: Site) -> UnfinishedBytes:
    return site.server.context.limits.unfinished


async def until_held(site: Site, size: int) -> None:
    """Wait until so many bytes are held."""
    deadline = time.monotonic() + PATIENCE
    while unfinished(site).held != size:
        assert time.monotonic() < deadline, unfinished(site).held
        await asyncio.sleep(0.01)


async def begin_half(begin: Begin, credential: str = ROOT_KEY, path: str = APPEND) -> Slow:
    """Begin an append, and send all of its packed body but the last byte."""
    request = await begin(path, credential, **GZIP)
    await request.send(HALF)
    return request


async def finish(request: Slow) -> int:
    """Send the last byte; return the answer's status."""
    await request.send(PACKED[-1:])
    await request.end()
    return (await request.answer()).status


def said_too_much(answer: RawAnswer) -> bool:
    return (answer.status, answer.json["code"]) == (429, "too_much_unfinished")


async def test_of_many_packed_bodies_that_do_not_end_no_more_is_held_than_may_be(opened: Opened, over: Over) -> None:
    async with opened(unfinished_bytes=5 * WHOLE_BYTES) as site, over(site) as begin:
        client = site.client()
        await client.create("chat-1")
        requests = [await begin_half(begin) for _ in range(12)]
        waiting = {asyncio.create_task(request.answer()): request for request in requests}
        answers: list[RawAnswer] = []
        while len(answers) < 7:
            done, _ = await asyncio.wait(waiting, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            assert done
            answers += [task.result() for task in done]
            waiting = {task: request for task, request in waiting.items() if task not in done}
            assert unfinished(site).held <= 5 * WHOLE_BYTES
        assert all(map(said_too_much, answers))
        await until_held(site, 5 * HALF_BYTES)
        assert await refused(site, "process_bytes") == 7
        assert await client.records("chat-1", "in") == []
        for request in waiting.values():
            await request.send(PACKED[-1:])
            await request.end()
        assert [(await task).status for task in waiting] == [200] * 5
        assert len(await client.records("chat-1", "in")) == 5
        await until_held(site, 0)


async def test_what_a_refusal_says(opened: Opened, over: Over) -> None:
    async with opened(unfinished_bytes_per_environment=1000) as site, over(site) as begin:
        await site.client().create("chat-1")
        answer = await (await begin()).answer()
    assert said_too_much(answer)
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json["ok"], answer.json["limit"]) == (False, 1000)
    assert "this environment" in answer.json["error"]


async def test_an_environment_that_has_used_up_its_share_leaves_the_others_theirs(opened: Opened, over: Over) -> None:
    async with opened(unfinished_bytes_per_environment=WHOLE_BYTES) as site, over(site) as begin:
        for key in (ROOT_KEY, OTHER_KEY):
            assert (await site.client(key).create("chat-1")).status == 201
        first = await begin_half(begin)
        await until_held(site, HALF_BYTES)
        assert said_too_much(await (await begin()).answer())
        other = await begin_half(begin, OTHER_KEY)
        await until_held(site, 2 * HALF_BYTES)
        assert [await finish(request) for request in (other, first)] == [200, 200]
        assert await refused(site, "environment_bytes") == 1


async def test_a_token_that_has_used_up_its_share_leaves_the_others_theirs(opened: Opened, over: Over) -> None:
    async with opened(unfinished_bytes_per_token=WHOLE_BYTES) as site, over(site) as begin:
        for name in ("chat-1", "chat-2"):
            assert (await site.client().create(name)).status == 201
        one, two = (session_token(site, name) for name in ("chat-1", "chat-2"))
        first = await begin_half(begin, one)
        await until_held(site, HALF_BYTES)
        assert said_too_much(await (await begin(credential=one)).answer())
        others = [
            await begin_half(begin, two, APPEND.replace("chat-1", "chat-2")),
            await begin_half(begin, ROOT_KEY),
        ]
        await until_held(site, 3 * HALF_BYTES)
        assert [await finish(request) for request in (*others, first)] == [200] * 3
        assert await refused(site, "token_bytes") == 1


async def test_a_small_body_that_comes_with_its_head_is_never_refused(opened: Opened) -> None:
    async with opened(unfinished_bytes=1) as site:
        await site.client().create("chat-1")
        assert (await site.raw_call("POST", APPEND, b"whole")).status == 200
        packed = gzip.compress(b"x" * SMALL_BYTES)
        assert (await site.raw_call("POST", APPEND, packed, headers=["Content-Encoding: gzip"])).status == 200
        message, headers = append_input(b'{"data":1,"id":"a"}'), (f"S2-Basin: {BASIN}", f"Content-Type: {PROTOBUF}")
        assert (await site.raw_call("POST", RECORDS, message, headers=headers)).status == 200


# --- however a body ends, nothing is held of it any more ---


async def come_to_its_end(request: Slow) -> None:
    assert await finish(request) == 200


async def leave(request: Slow) -> None:
    await request.leave()


async def be_too_slow(request: Slow) -> None:
    assert (await request.answer()).status == 408


async def be_too_large(request: Slow) -> None:
    await request.send(bytes(1_100_000))
    assert (await request.answer()).status == 413


async def go_on_after_its_end(request: Slow) -> None:
    await request.send(PACKED[-1:] + b"more")
    await request.end()
    assert (await request.answer()).status == 400


@pytest.mark.parametrize("end", [come_to_its_end, leave, be_too_slow, be_too_large, go_on_after_its_end])
async def test_however_a_body_ends_nothing_is_held_of_it(
    opened: Opened, over: Over, end: Callable[[Slow], Awaitable[None]]
) -> None:
    patience = timedelta(seconds=0.2) if end is be_too_slow else Config().body_timeout
    async with opened(body_timeout=patience) as site, over(site) as begin:
        assert (await site.raw_call("POST", "/api/v1/sessions", CREATE)).status == 201  # at once: nothing times it
        request = await begin_half(begin, session_token(site, "chat-1"))
        if end is not be_too_slow:
            await until_held(site, HALF_BYTES)
        await end(request)
        await until_held(site, 0)
        assert len(unfinished(site)) == 0


# --- the data plane and the chat page ---


def append_input(body: bytes) -> bytes:
    message = pb.AppendInput()
    message.records.add(body=body)
    data: bytes = message.SerializeToString()
    return data


async def test_session_routes_and_the_data_plane_have_one_limit(opened: Opened, over: Over) -> None:
    async with opened(unfinished_bytes=WHOLE_BYTES) as site, over(site) as begin:
        await site.client().create("chat-1")
        session_route = await begin_half(begin)
        await until_held(site, HALF_BYTES)
        answer = await (await begin(RECORDS, content_type=PROTOBUF)).answer()
        assert (answer.status, answer.json.keys(), answer.json["code"]) == (429, {"code", "message"}, "rate_limited")
        assert answer.headers["retry-after"] == "1"
        assert await finish(session_route) == 200
        data_plane = await begin(RECORDS, content_type=PROTOBUF)
        await until_held(site, REQUEST_BYTES)
        await data_plane.send(append_input(b'{"data":1,"id":"a"}')[:-1])
        await until_held(site, REQUEST_BYTES + len(append_input(b'{"data":1,"id":"a"}')) - 1)
        assert said_too_much(await (await begin()).answer())
        await data_plane.send(append_input(b'{"data":1,"id":"a"}')[-1:])
        await data_plane.end()
        assert (await data_plane.answer()).status == 200
        assert await refused(site, "process_bytes") == 2
        await until_held(site, 0)


async def test_a_frame_that_is_one_too_many_ends_its_session_and_the_others_go_on(opened: Opened) -> None:
    frame = encode_frame(append_input(b"x" * 900_000))
    headers = [("authorization", f"Bearer {ROOT_KEY}"), ("s2-basin", BASIN), ("content-type", SESSION)]
    async with opened(unfinished_bytes=1024 * 1024) as site, connect(site.port) as client:
        await site.client().create("chat-1")
        first = client.begin("POST", RECORDS, headers)
        await first.send(frame[:-1])
        await until_held(site, len(frame) - 1)
        second = client.begin("POST", RECORDS, headers)
        await second.send(frame[:-1])
        ended = direct.Answer(200, {}, (await second.answer()).body).frames
        await first.send(frame[-1:], end=True)
        answered = direct.Answer(200, {}, (await first.answer()).body).frames
        await until_held(site, 0)
    assert (ended.status, ended.error["code"]) == (429, "rate_limited")
    assert (len(answered.payloads), answered.error) == (1, None)


async def test_the_chat_page_has_a_share_of_its_own(opened: Opened, over: Over) -> None:
    page = {"content_type": "application/json", "sec_fetch_site": "same-origin"}
    async with opened(unfinished_bytes_per_environment=REQUEST_BYTES + 1) as site, over(site) as begin:
        await site.client().create("chat-1")
        first = await begin("/page/sessions", None, **page)
        await first.send(b"{")
        await until_held(site, REQUEST_BYTES + 1)
        assert said_too_much(await (await begin("/page/tokens", None, **page)).answer())
        assert await refused(site, "page_bytes") == 1
        append = await begin()
        await until_held(site, 2 * REQUEST_BYTES + 1)
        await append.end()
        assert (await append.answer()).status == 200
        await first.send(b"}")
        await first.end()
        assert said_too_much(await first.answer())
        await until_held(site, 0)


@pytest.mark.parametrize(
    ("path", "content_type"),
    [("/realtime/v1/sessions/chat-1/out", "application/json"), (f"{RECORDS}?seq_num=0", SESSION)],
    ids=["subscription", "read session"],
)
async def test_a_body_that_nobody_reads_is_not_kept_and_its_answer_goes_on(
    opened: Opened, over: Over, path: str, content_type: str
) -> None:
    async with opened() as site, over(site) as begin, asyncio.timeout(PATIENCE):
        await site.client().create("chat-1")
        request = await begin(path, method="GET", content_type=content_type)
        for _ in range(256):  # far more than windows and the buffers of sockets hold together
            await request.send(bytes(65_536))
        while len(site.server.context.streams) != 1:
            await asyncio.sleep(0.01)
        assert unfinished(site).held == 0


@pytest.mark.parametrize(
    ("path", "end"),
    [("/realtime/v1/sessions/chat-1/out", b"0\r\n\r\n"), (f"{RECORDS}?tail_offset=0&wait=1", b"}}")],
    ids=["subscription", "waiting read"],
)
async def test_behind_a_body_that_nobody_reads_the_next_request_is_answered(
    opened: Opened, path: str, end: bytes
) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}\r\nS2-Basin: {BASIN}\r\nTimeout-Seconds: 1\r\n"
    async with opened() as site:
        assert (await site.client().create("chat-1")).status == 201
        async with sent(site, f"{head}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n") as (reader, writer):
            async with asyncio.timeout(PATIENCE):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                await reader.readuntil(end)
            writer.write(f"4\r\nrest\r\n0\r\n\r\n{GET}\r\n".encode())
            answer = await said(reader)
    assert (answer.status, answer.json) == (200, {"status": "ok"})


async def test_metrics_tell_how_much_is_held(opened: Opened, over: Over) -> None:
    async with opened() as site, over(site) as begin:
        await site.client().create("chat-1")
        await begin_half(begin)
        await until_held(site, HALF_BYTES)
        metrics: str = (await site.client().call("GET", "/metrics")).body
    assert f"sessions_unfinished_bytes {float(HALF_BYTES)}" in metrics.splitlines()
