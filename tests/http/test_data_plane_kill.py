"""A direct writer while the server is killed with SIGKILL and started again: what was acknowledged is there, once, in order."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import ClientSession
from s2_sdk import S2, AppendInput, Endpoints, Record, Retry, S2Stream

from harness.backends import SHARED, environment_of, open_backends
from harness.client import Client
from harness.server import KEY, ServerProcess
from sessions_adapters.profiles import EMBEDDED

KILLS = 2
BETWEEN = 60
"""Acknowledged batches between two kills."""
PATIENT = Retry(max_attempts=60, min_base_delay=timedelta(milliseconds=50), max_base_delay=timedelta(milliseconds=200))


def batch(number: int) -> AppendInput:
    return AppendInput([Record(b'{"data":%d,"id":"%d"}' % (value, value)) for value in (2 * number, 2 * number + 1)])


async def write(stream: S2Stream, acknowledged: list[int], is_over: asyncio.Event) -> None:
    """Write batches, some of them under way at any time, and note the seqs of those that are acknowledged."""
    async with stream.append_session(max_unacked_batches=8) as session:
        tickets = []
        number = 0
        while not is_over.is_set():
            tickets.append(await session.submit(batch(number)))
            number += 1
            while len(tickets) > len(acknowledged) + 8:
                acknowledged.append((await tickets[len(acknowledged)]).start.seq_num)
        for ticket in tickets[len(acknowledged) :]:
            acknowledged.append((await ticket).start.seq_num)


@pytest.mark.parametrize("profile", [EMBEDDED, SHARED[0]])
async def test_what_was_acknowledged_is_there_once_and_in_order(profile: str, tmp_path: Path) -> None:
    async with open_backends(profile, tmp_path / "data") as backends, ClientSession() as http, asyncio.timeout(50):
        server = ServerProcess(tmp_path / "data", environment=environment_of(backends))
        with server:
            client = Client(http, server.address, KEY)
            await client.create("chat-1", task="elsewhere")
            given = (await client.call("PUT", "/realtime/v1/sessions/chat-1/out")).headers
            endpoints = Endpoints(server.address, server.address)
            async with S2(given["X-S2-Access-Token"], endpoints=endpoints, retry=PATIENT) as s2:
                stream = s2.basin(given["X-S2-Basin"]).stream(given["X-S2-Stream-Name"])
                acknowledged: list[int] = []
                is_over = asyncio.Event()
                writing = asyncio.create_task(write(stream, acknowledged, is_over))
                for kill in range(1, KILLS + 2):
                    while len(acknowledged) < kill * BETWEEN and not writing.done():
                        await asyncio.sleep(0.005)
                    if kill <= KILLS:
                        server.kill()
                        await asyncio.to_thread(server.start)
                is_over.set()
                await writing
            assert acknowledged == list(range(0, 2 * len(acknowledged), 2))
            found = await client.records("chat-1", "out")
    assert [record["seqNum"] for record in found] == list(range(2 * len(acknowledged)))
    assert [record["data"] for record in found] == list(range(2 * len(acknowledged)))
