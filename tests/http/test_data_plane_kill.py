"""Direct writers while the server is killed with SIGKILL and started again: what was acknowledged is there, once, in order.

The writers send one batch after the other. (An append session of the SDK would be of no use here: when its connection is lost it may
forget a batch that it has not sent yet, and waits for the ack for ever.)
"""

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

WRITERS = 3
KILLS = 2
BETWEEN = 60
"""Acknowledged batches between two kills."""
PATIENT = Retry(max_attempts=60, min_base_delay=timedelta(milliseconds=50), max_base_delay=timedelta(milliseconds=200))


async def write(stream: S2Stream, writer: int, acknowledged: dict[int, str], is_over: asyncio.Event) -> None:
    """Write batches of two, and note which record is said to be at which seq."""
    number = 0
    while not is_over.is_set():
        names = [f"{writer}-{number}-{part}" for part in "ab"]
        records = [Record(b'{"data":"%b","id":"%b"}' % (name.encode(), name.encode())) for name in names]
        ack = await stream.append(AppendInput(records))
        acknowledged |= zip(range(ack.start.seq_num, ack.end.seq_num), names, strict=True)
        number += 1


@pytest.mark.parametrize("profile", [EMBEDDED, SHARED[0]])
async def test_what_was_acknowledged_is_there_once_and_in_order(profile: str, tmp_path: Path) -> None:
    acknowledged: dict[int, str] = {}
    is_over = asyncio.Event()
    async with open_backends(profile, tmp_path / "data") as backends, ClientSession() as http, asyncio.timeout(50):
        with ServerProcess(tmp_path / "data", environment=environment_of(backends)) as server:
            client = Client(http, server.address, KEY)
            await client.create("chat-1", task="elsewhere")
            given = (await client.call("PUT", "/realtime/v1/sessions/chat-1/out")).headers
            endpoints = Endpoints(server.address, server.address)
            async with S2(given["X-S2-Access-Token"], endpoints=endpoints, retry=PATIENT) as s2:
                stream = s2.basin(given["X-S2-Basin"]).stream(given["X-S2-Stream-Name"])
                async with asyncio.TaskGroup() as tasks:
                    for writer in range(WRITERS):
                        tasks.create_task(write(stream, writer, acknowledged, is_over))
                    for kill in range(1, KILLS + 2):
                        while len(acknowledged) < 2 * kill * BETWEEN:
                            await asyncio.sleep(0.005)
                        if kill <= KILLS:
                            server.kill()
                            await asyncio.to_thread(server.start)
                    is_over.set()
            found = {record["seqNum"]: record["data"] for record in await client.records("chat-1", "out")}
    assert found == acknowledged
    assert len(set(found.values())) == len(found)
    for writer in range(WRITERS):
        numbers = [int(name.split("-")[1]) for _, name in sorted(found.items()) if name.startswith(f"{writer}-")]
        assert numbers == sorted(numbers)
