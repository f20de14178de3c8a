"""Clients that are too slow, and connections that are too many or too old: each ends, and costs little until then."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from harness.in_process import ENVIRONMENT, Site
from harness.sockets import APPEND, AUTHORIZED, GET, PATIENCE, check, said, sent, served, until_end
from sessions_adapters.profiles import MEMORY
from sessions_server.data_plane.names import basin_of
from sessions_server.http1.connection import Connection
from sessions_server.http1.intake import Intake

SOON = timedelta(seconds=0.2)
RECORDS = f"GET /realtime/v1/sessions/chat-1/in/records HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}\r\n\r\n"
SUBSCRIBE = f"GET /realtime/v1/sessions/chat-1/in HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}\r\n\r\n"
DIRECT_APPEND = (
    "POST /v1/streams/sessions%2Fchat-1%2Fin/records HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    f"S2-Basin: {basin_of(ENVIRONMENT)}\r\n{AUTHORIZED}\r\n"
)


@pytest.fixture
def profile() -> str:
    """One is enough: nothing here depends on a store."""
    return MEMORY


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


async def test_an_idle_connection_is_not_cut_in_the_middle_of_a_head(tmp_path: Path) -> None:
    async with served(tmp_path, idle_timeout=SOON) as site, sent(site, f"{GET}\r\n") as (reader, writer):
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b'{"status":"ok"}')
            writer.write(GET.encode())
            await asyncio.sleep(5 * SOON.total_seconds())  # a head has ten seconds
            writer.write(b"\r\n")
            await reader.readuntil(b'{"status":"ok"}')
            assert await reader.read() == b"", "and idle it ends"


async def test_a_connection_without_requests_is_closed(tmp_path: Path) -> None:
    async with served(tmp_path, idle_timeout=SOON) as site, sent(site, f"{GET}\r\n") as (reader, _):
        assert (await said(reader)).status == 200
        await until_end(reader)


# --- Nothing is left behind ---------------------------------------------------------------------


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
