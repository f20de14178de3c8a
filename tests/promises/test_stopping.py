"""SIGTERM under load: a clean end in time, and promises 1 and 3 over the restart."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import attrs
import pytest

from harness.answers import problems_of
from harness.client import Client
from harness.server import KEY, ServerProcess
from harness.storm import text_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

WRITERS = 16
SESSIONS = 8
LOAD_SECONDS = 1.5
STOP_SECONDS = 15.0
"""Runs may go on for 10 s and requests for 5 s; an answer of the slowest kind takes 4 s."""


@attrs.define(eq=False)
class Writer:
    """Appends messages until the server is gone. The fifth is a slow one, so it is being answered when SIGTERM comes.

    Attributes:
        acknowledged: What was taken, by its seq.
        unknown: What got no answer, or no good one, so may or may not have been taken.
        refusals: Answers that a stopping server must not give.
    """

    name: str
    session: str
    client: Client
    acknowledged: dict[int, str] = attrs.field(init=False, factory=dict)
    unknown: set[str] = attrs.field(init=False, factory=set)
    refusals: list[str] = attrs.field(init=False, factory=list)

    async def write_until(self, gone: asyncio.Event) -> None:
        number = 0
        while not gone.is_set():
            kind = "slow" if number == 4 else "quick"
            text, number = f"{kind} {self.name} number {number}.", number + 1
            try:
                answer = await self.client.say(self.session, text)
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                self.unknown.add(text)
                await asyncio.sleep(0.05)
                continue
            if answer.status == 200:
                self.acknowledged[answer.body["seq"]] = text
            elif answer.status >= 500:
                self.unknown.add(text)
            else:
                self.refusals.append(f"{self.name}: {answer.status} {answer.body}")
            await asyncio.sleep(0.02)


async def test_sigterm_under_load_ends_with_0_in_time_and_loses_nothing(server: ServerProcess) -> None:
    timeout, connector = aiohttp.ClientTimeout(total=30), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        client = Client(http, server.address, KEY)
        names = [f"s{number}" for number in range(SESSIONS)]
        for name in names:
            assert (await client.create(name)).status == 201
        crew = [Writer(f"w{number}", names[number % SESSIONS], client) for number in range(WRITERS)]
        gone = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for writer in crew:
                tasks.create_task(writer.write_until(gone))
            await asyncio.sleep(LOAD_SECONDS)
            begun = time.monotonic()
            code = await asyncio.to_thread(server.stop)
            took = time.monotonic() - begun
            gone.set()
        await asyncio.to_thread(server.start)
        problems, stored = [], 0
        for name in names:
            mine = [writer for writer in crew if writer.session == name]
            problems += await problems_after(client, name, mine)
            stored += len(await client.records(name, "in"))

    acknowledged = sum(len(writer.acknowledged) for writer in crew)
    counts = f"{acknowledged} acknowledged, {stored} stored, {len(problems)} problems"
    print(f"\nSIGTERM against {WRITERS} writers: exit code {code} after {took:.1f} s, {counts}")
    assert [line for writer in crew for line in writer.refusals] == []
    assert problems == []
    assert code == 0
    assert took < STOP_SECONDS
    assert "Traceback" not in "\n".join(server.output)


async def problems_after(client: Client, name: str, writers: list[Writer]) -> list[str]:
    """Say which acknowledged messages of a session are not there once, or not answered once."""
    texts = {record["seqNum"]: text_in(record) for record in await client.records(name, "in")}
    acknowledged = {seq: text for writer in writers for seq, text in writer.acknowledged.items()}
    unknown = {text for writer in writers for text in writer.unknown}
    found = [f"{name}: {text!r} is not at {seq}" for seq, text in acknowledged.items() if texts.get(seq) != text]
    if len(set(texts.values())) != len(texts):
        found.append(f"{name}: a message is there twice")
    found += [
        f"{name}: {text!r} is there, but its writer was told that it is not"
        for seq, text in texts.items()
        if seq not in acknowledged and text not in unknown
    ]
    return found + await problems_of(client, name, texts, seconds=40)
