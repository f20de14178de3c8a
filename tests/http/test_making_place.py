"""A full server closes who has been without a request for longest, and never a request or a stream; it refuses when all are busy."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

from harness.in_process import Site
from harness.server import KEY, ServerProcess
from harness.sockets import (
    APPEND,
    AUTHORIZED,
    GET,
    PATIENCE,
    check,
    metric,
    said,
    sent,
    served,
    until_end,
    until_metric,
)
from sessions_server.connections.places import MOST_LEAVING

WHOLE = f"{GET}\r\n"
LAST = f"{GET}Connection: close\r\n\r\n"
HALF = "GET /healthz HTTP/1.1\r\nHo"
SUBSCRIBE = f"GET /realtime/v1/sessions/chat-1/in HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}\r\n\r\n"
RECORDS = f"GET /realtime/v1/sessions/chat-1/in/records HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}\r\n\r\n"
CREATE = {
    "type": "chat.agent",
    "taskIdentifier": "nobody",
    "triggerConfig": {"basePayload": {}},
    "externalId": "chat-1",
}
Held = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def held(site: Site, count: int, text: str = "") -> AsyncIterator[list[Held]]:
    """Open connections one after the other, send *text* on each, and read its answer if it is a whole request."""
    async with AsyncExitStack() as stack:
        opened = list[Held]()
        for _ in range(count):
            before = metric(site, "sessions_connections")
            opened.append(await stack.enter_async_context(sent(site, text)))
            if text:
                assert (await said(opened[-1][0])).status == 200
            else:
                await until_metric(site, "sessions_connections", before + 1)
        yield opened


async def ask(one: Held, text: str = WHOLE) -> int:
    """Ask something on a connection that is open; return the status."""
    one[1].write(text.encode())
    return (await said(one[0])).status


async def create(site: Site) -> None:
    assert (await site.raw_call("POST", "/api/v1/sessions", json.dumps(CREATE).encode())).status == 201


async def until_begun(reader: asyncio.StreamReader) -> None:
    """Wait until a stream has begun."""
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"\r\n\r\n")


# --- Who goes -----------------------------------------------------------------------------------


async def test_silent_connections_make_place_the_oldest_first(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=3) as site, held(site, 3) as silent:
        async with sent(site, WHOLE) as first:
            assert (await said(first[0])).status == 200
            await until_end(silent[0][0])
            async with sent(site, WHOLE) as second:
                assert (await said(second[0])).status == 200
                await until_end(silent[1][0])
                assert await ask(silent[2]) == 200
                assert await ask(first) == 200
        assert metric(site, "sessions_connections_made_place_total") == 2
        assert metric(site, "sessions_connections_refused_total") == 0


async def test_of_idle_connections_the_one_goes_that_was_answered_first(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=3) as site, held(site, 3, WHOLE) as idle:
        assert await ask(idle[0]) == 200
        async with sent(site, WHOLE) as newcomer:
            assert (await said(newcomer[0])).status == 200
            await until_end(idle[1][0])
            for one in (newcomer, idle[0], idle[2]):
                assert await ask(one) == 200


async def test_a_head_that_is_half_there_makes_place(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=2) as site, held(site, 2, WHOLE + HALF) as idle:
        assert (await site.raw(LAST.encode())).status == 200
        await until_end(idle[0][0])
        assert await ask(idle[1], "st: x\r\n\r\n") == 200


async def test_a_flood_of_silent_connections_leaves_a_newcomer_its_time(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=5) as site, held(site, 5), sent(site, HALF) as newcomer:
        await until_metric(site, "sessions_connections_made_place_total", 1)
        async with AsyncExitStack() as stack:
            for number in range(3):
                await stack.enter_async_context(sent(site, ""))
                await until_metric(site, "sessions_connections_made_place_total", 2 + number)
            assert await ask(newcomer, "st: x\r\n\r\n") == 200


async def test_a_request_that_was_refused_makes_place_while_its_body_is_waited_for(tmp_path: Path) -> None:
    refused = "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    async with served(tmp_path, max_connections=1) as site, sent(site, refused) as (reader, _):
        assert (await said(reader)).status == 404
        assert (await site.raw(LAST.encode())).status == 200
        await until_end(reader)


# --- Who stays ----------------------------------------------------------------------------------


async def test_requests_and_streams_are_never_closed_and_a_newcomer_is_told(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=2) as site:
        await create(site)
        async with sent(site, SUBSCRIBE) as stream, sent(site, f"{APPEND}Content-Length: 4\r\n\r\nhe") as append:
            await until_begun(stream[0])
            await until_metric(site, "sessions_connections_idle", 0)
            for number in range(3):
                async with sent(site, WHOLE) as (reader, _):
                    answer = await said(reader)
                    check(answer, 503, "too_many_connections")
                    assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
                    await until_end(reader)
                assert metric(site, "sessions_connections_refused_total") == number + 1
            assert await ask(append, "yo") == 200
            async with asyncio.timeout(PATIENCE):
                await stream[0].readuntil(b"heyo")
            assert (await site.raw(LAST.encode())).status == 200
            await until_end(append[0])
            await check_that_it_goes_on(site, stream[0])


async def check_that_it_goes_on(site: Site, reader: asyncio.StreamReader) -> None:
    """See that a stream goes on."""
    assert (await site.raw_call("POST", "/realtime/v1/sessions/chat-1/in/append", b"second")).status == 200
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"second")


async def test_all_who_come_at_once_are_told(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=1) as site:
        await create(site)
        async with sent(site, SUBSCRIBE) as (reader, _):
            await until_begun(reader)
            answers = await asyncio.gather(*(site.raw(WHOLE.encode()) for _ in range(20)))
            assert [answer.status for answer in answers] == [503] * 20
            await until_metric(site, "sessions_connections", 1)


async def test_silent_connections_without_a_place_are_few(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=1) as site, AsyncExitStack() as stack:
        await create(site)
        stream = await stack.enter_async_context(sent(site, SUBSCRIBE))
        await until_begun(stream[0])
        silent = [await stack.enter_async_context(sent(site, "")) for _ in range(MOST_LEAVING + 2)]
        await until_end(silent[0][0])
        await until_end(silent[1][0])
        silent[2][1].write(WHOLE.encode())
        check(await said(silent[2][0]), 503, "too_many_connections")
        assert metric(site, "sessions_connections") == 1


async def test_an_answer_that_is_being_fetched_is_not_cut_and_makes_place_when_it_is_there(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=1, slow_write=timedelta(minutes=5)) as site:
        await create(site)
        for _ in range(12):  # the kernel holds some megabytes of them
            path = "/realtime/v1/sessions/chat-1/in/append"
            assert (await site.raw_call("POST", path, b"x" * 1_000_000)).status == 200
        async with sent(site, RECORDS, room=4096) as (reader, _), asyncio.timeout(4 * PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            check(await site.raw(LAST.encode()), 503, "too_many_connections")
            await reader.readexactly(int(re.findall(rb"Content-Length: (\d+)", head)[0]))
            while (await site.raw(LAST.encode())).status == 503:
                await asyncio.sleep(0.05)
            await until_end(reader)


# --- The real thing -----------------------------------------------------------------------------


async def test_silent_connections_do_not_lock_anybody_out_of_a_server(tmp_path: Path) -> None:
    settings = {"SESSIONS_MAX_CONNECTIONS": "20"}
    with ServerProcess(tmp_path, environment=settings) as server:
        async with AsyncExitStack() as stack, asyncio.timeout(4 * PATIENCE):

            async def connect(text: str = "") -> Held:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                stack.callback(writer.close)
                writer.write(text.replace(AUTHORIZED, f"Authorization: Bearer {KEY}").encode())
                return reader, writer

            body = json.dumps(CREATE)
            head = f"POST /api/v1/sessions HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}\r\nContent-Length: {len(body)}\r\n\r\n"
            assert (await said((await connect(head + body))[0])).status == 201
            stream = await connect(SUBSCRIBE)
            await until_begun(stream[0])
            silent = [await connect() for _ in range(100)]
            for _ in range(30):
                one = await connect(f"{APPEND}Content-Length: 2\r\n\r\nhi")
                assert (await said(one[0])).status == 200
            for reader, _ in silent:
                assert await reader.read() == b""
            for _ in range(30):
                await stream[0].readuntil(b"hi")
