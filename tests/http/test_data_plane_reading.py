"""Reading through the data plane: bounded in what is held, complete up to the tail, and no longer than it may."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
import s2_sdk._generated.s2.v1.s2_pb2 as pb

from harness.client import Client
from harness.direct import SESSION, call, channel, own_credentials
from harness.in_process import Site
from sessions_adapters.memory import InMemoryChannelLog
from sessions_adapters.profiles import EMBEDDED, MEMORY
from sessions_core.domain.channel import Batch, Channel, NewRecord
from sessions_core.domain.guard import UNTOUCHED

MIB = 1_048_576
EVENTS = "text/event-stream"


async def fill(site: Site, *sizes: int) -> int:
    """Append records of these sizes to ``out``; return the seq of the first."""
    log = site.sessions.ports.log
    places = [(await log.append(channel(), [NewRecord(bytes(size))], guard=UNTOUCHED))[0] for size in sizes]
    return places[0].seq


@pytest.mark.parametrize("profile", [EMBEDDED])
async def test_one_answer_takes_no_more_from_the_log_than_it_may_give(chat: Client, site: Site) -> None:
    start = await fill(site, *[MIB // 2] * 24)
    tracemalloc.start()
    try:
        answer = await call(site, "GET", own_credentials(), query=f"?seq_num={start}", s2_format="base64")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [record["seq_num"] for record in answer.json["records"]] == [start]
    assert peak < 8 * MIB


@pytest.mark.parametrize("profile", [MEMORY])
async def test_a_bounded_session_gives_what_was_there_though_the_hub_has_not_heard_of_it(
    chat: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow, may_hear = InMemoryChannelLog.follow, asyncio.Event()

    @asynccontextmanager
    async def follow_late(log: InMemoryChannelLog, of: Channel, start: int) -> AsyncGenerator[AsyncIterator[Batch]]:
        await may_hear.wait()
        async with follow(log, of, start) as batches:
            yield batches

    monkeypatch.setattr(InMemoryChannelLog, "follow", follow_late)
    async with asyncio.timeout(20), site.sessions.channels.subscribe(channel()):
        await fill(site, 10, 10, 10)
        reading = asyncio.create_task(
            call(site, "GET", own_credentials(), query="?seq_num=0&count=2", content_type=SESSION)
        )
        while not len(site.server.context.streams) and not reading.done():
            await asyncio.sleep(0.01)
        may_hear.set()
        payloads = (await reading).frames.payloads
    assert [record.seq_num for payload in payloads for record in pb.ReadBatch.FromString(payload).records] == [0, 1]


@pytest.mark.parametrize("profile", [EMBEDDED])
async def test_each_event_says_how_much_had_come_with_it(chat: Client, site: Site) -> None:
    start = await fill(site, MIB - 100, *[10] * 20)
    answer = await call(site, "GET", own_credentials(), query=f"?seq_num={start}&count=21", accept=EVENTS)
    ids = [line.removeprefix(b"id: ") for line in answer.body.splitlines() if line.startswith(b"id: ")]
    counts = [len(json.loads(line[6:])["records"]) for line in answer.body.splitlines() if line.startswith(b"data: {")]
    assert len(ids) > 1, "they do not fit into one"
    given = 0
    for event_id, count in zip(ids, counts, strict=True):
        given += count
        assert int(event_id.split(b",")[1]) == given


@pytest.mark.parametrize("profile", [EMBEDDED])
async def test_who_waits_for_a_first_record_is_answered_when_the_server_stops(chat: Client, site: Site) -> None:
    given = own_credentials()
    async with asyncio.timeout(20):
        waiting = asyncio.create_task(call(site, "GET", given, query="?tail_offset=0&wait=60"))
        while not len(site.server.context.streams):
            await asyncio.sleep(0.01)
        site.server.context.streams.end()
        answer = await waiting
    assert (answer.status, answer.json["records"], "tail" in answer.json) == (200, [], True)


@pytest.mark.parametrize("profile", [EMBEDDED])
async def test_who_waits_for_a_first_record_may_have_lost_the_right_to_it(chat: Client, site: Site) -> None:
    given = own_credentials(token=site.sign(["read:sessions:chat-1"], seconds=2))
    async with asyncio.timeout(20):
        waiting = asyncio.create_task(call(site, "GET", given, query="?tail_offset=0&wait=60"))
        while (await call(site, "GET", given, query="/tail")).status == 200:
            await asyncio.sleep(0.05)
        await fill(site, 10)
        answer = await waiting
    assert (answer.status, answer.code) == (401, "authn")
