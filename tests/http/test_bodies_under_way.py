"""Large bodies count for as long as their requests are under way: a store that is slow must not gather them without end."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote

import attrs
import pytest
import s2_sdk._generated.s2.v1.s2_pb2 as pb

from harness import direct
from harness.direct import BASIN, SESSION, own_credentials
from harness.http2 import Answer, connect
from harness.in_process import ROOT_KEY, Site
from harness.limits import Opened, refused
from harness.sockets import PATIENCE, sent
from sessions_core.services.channel_service import ChannelService
from sessions_core.services.session_service import SessionService
from sessions_server.data_plane.appending import Appender
from sessions_server.data_plane.compression import Compression
from sessions_server.data_plane.frames import encode_frame

APPEND: Final = "/realtime/v1/sessions/chat-1/in/append"
RECORDS: Final = f"/v1/streams/{quote(own_credentials().stream, safe='')}/records"
SIZE: Final = 500_000
AUTHORIZED: Final = [("authorization", f"Bearer {ROOT_KEY}"), ("s2-basin", BASIN)]


@attrs.define
class Store:
    """A store that takes its time over what is written."""

    reached: int = 0
    is_open: asyncio.Event = attrs.field(factory=asyncio.Event)

    def slow(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def wait(*args: Any, **more: Any) -> Any:
            self.reached += 1
            await self.is_open.wait()
            return await call(*args, **more)

        return wait

    async def until_reached(self, count: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.reached != count:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    for owner, name in (
        (ChannelService, "append_text"),
        (SessionService, "create"),
        (Appender, "append"),
    ):
        monkeypatch.setattr(owner, name, made.slow(getattr(owner, name)))
    return made


async def until_held(site: Site, size: int) -> None:
    """Wait until so many bytes are held."""
    deadline = time.monotonic() + PATIENCE
    while (held := site.server.context.limits.unfinished.held) != size:
        assert time.monotonic() < deadline, held
        await asyncio.sleep(0.01)


async def create(site: Site, store: Store) -> None:
    store.is_open.set()
    assert (await site.client().create("chat-1")).status == 201
    store.is_open.clear()
    store.reached = 0


async def append(site: Site) -> Answer:
    """Append what is a few hundred bytes on the way, and much more here."""
    async with connect(site.port) as client:
        return await client.call(
            "POST", APPEND, gzip.compress(b"x" * SIZE), [*AUTHORIZED, ("content-encoding", "gzip")]
        )


def append_input() -> bytes:
    message = pb.AppendInput()
    message.records.add(body=b"x" * SIZE)
    data: bytes = message.SerializeToString()
    return data


async def test_of_bombs_that_wait_for_the_store_no_more_are_held_than_may_be(opened: Opened, store: Store) -> None:
    async with opened(unfinished_bytes=3 * SIZE + SIZE // 2) as site:
        await create(site, store)
        waiting = {asyncio.create_task(append(site)) for _ in range(8)}
        answers: list[Answer] = []
        while len(answers) < 5:
            done, waiting = await asyncio.wait(waiting, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            assert done
            answers += [task.result() for task in done]
        assert {(answer.status, answer.json["code"]) for answer in answers} == {(429, "too_much_unfinished")}
        await store.until_reached(3)
        assert site.server.context.limits.unfinished.held == 3 * SIZE
        small = asyncio.create_task(site.raw_call("POST", APPEND, b"small"))
        await store.until_reached(4)
        store.is_open.set()
        assert [(await task).status for task in waiting] == [200] * 3
        assert (await small).status == 200
        assert await refused(site, "process_bytes") == 5
        await until_held(site, 0)


async def test_a_body_of_a_direct_writer_counts_until_it_is_acknowledged(opened: Opened, store: Store) -> None:
    async with opened(unfinished_bytes=SIZE + SIZE // 2) as site, connect(site.port) as client:
        await create(site, store)
        headers = [*AUTHORIZED, ("content-type", "application/protobuf"), ("content-encoding", "gzip")]
        body = gzip.compress(append_input())
        first = asyncio.create_task(client.call("POST", RECORDS, body, headers))
        await store.until_reached(1)
        assert site.server.context.limits.unfinished.held == len(append_input())
        second = await client.call("POST", RECORDS, body, headers)
        assert (second.status, second.json["code"]) == (429, "rate_limited")
        store.is_open.set()
        assert (await first).status == 200
        await until_held(site, 0)


async def test_a_batch_of_a_session_counts_until_it_is_acknowledged(opened: Opened, store: Store) -> None:
    async with opened(unfinished_bytes=SIZE + SIZE // 2) as site, connect(site.port) as client:
        await create(site, store)
        frame = encode_frame(append_input(), Compression.GZIP)
        first, second = (client.begin("POST", RECORDS, [*AUTHORIZED, ("content-type", SESSION)]) for _ in range(2))
        await first.send(frame, end=True)
        await store.until_reached(1)
        assert site.server.context.limits.unfinished.held == len(frame) + len(append_input())
        await second.send(frame, end=True)
        ended = direct.Answer(200, {}, (await second.answer()).body).frames
        store.is_open.set()
        answered = direct.Answer(200, {}, (await first.answer()).body).frames
        await until_held(site, 0)
    assert (len(ended.payloads), ended.status, ended.error["code"]) == (0, 429, "rate_limited")
    assert (len(answered.payloads), answered.error) == (1, None)


async def test_a_body_counts_until_the_change_is_made_although_its_client_has_left(
    opened: Opened, store: Store
) -> None:
    async with opened() as site:
        body = json.dumps({"type": "t", "taskIdentifier": "t", "triggerConfig": {"basePayload": {"x": "x" * 20_000}}})
        head = f"POST /api/v1/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ROOT_KEY}\r\n"
        async with sent(site, f"{head}Content-Length: {len(body)}\r\n\r\n{body}"):
            await store.until_reached(1)
        deadline = time.monotonic() + PATIENCE
        while b'status="499"' not in site.server.context.metrics.render():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert site.server.context.limits.unfinished.held == len(body)
        store.is_open.set()
        await until_held(site, 0)
