"""The S2 data plane: the official Python SDK against our endpoint, over every log."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import pytest
import s2_sdk._generated.s2.v1.s2_pb2 as pb
from s2_sdk import (
    AppendInput,
    Batching,
    CommandRecord,
    Compression,
    FencingTokenMismatchError,
    ReadLimit,
    ReadUnwrittenError,
    Record,
    S2ServerError,
    SeqNum,
    SeqNumMismatchError,
    TailOffset,
    Timestamp,
)

from harness.client import Client, message
from harness.direct import (
    SESSION,
    Answer,
    begin,
    call,
    channel,
    data_of,
    envelope,
    numbered,
    open_stream,
    own_credentials,
    refusal_of,
    token_for,
)
from harness.http2 import connect
from harness.in_process import Site
from sessions_core.domain.channel import Io
from sessions_core.domain.direct import FIRST_TENURE
from sessions_server.data_plane.frames import encode_frame


async def test_an_append_is_acknowledged_with_its_place_and_read_by_everybody(chat: Client, site: Site) -> None:
    async with open_stream(site, own_credentials()) as stream:
        first = await stream.append(AppendInput(numbered(2)))
        control = Record(b"", [(b"trigger-control", b"turn-complete"), (b"session-in-event-id", b"3")])
        second = await stream.append(AppendInput([control]))
        assert (first.end.seq_num - first.start.seq_num, second.start.seq_num) == (2, first.end.seq_num)
        batch = await stream.read(start=SeqNum(first.start.seq_num))
    assert [record.body for record in batch.records] == [*(record.body for record in numbered(2)), b""]
    assert batch.records[2].headers == control.headers
    assert batch.tail is not None
    assert batch.tail.seq_num == second.end.seq_num
    assert batch.records[0].timestamp <= batch.tail.timestamp
    found = await chat.records("chat-1", "out")
    assert [record["id"] for record in found[-3:-1]] == ["part-0", "part-1"]


@pytest.mark.parametrize("compression", Compression)
async def test_a_session_acknowledges_in_order_whatever_is_compressed(
    chat: Client, site: Site, compression: Compression
) -> None:
    batches = [[envelope("x" * 900, f"{number}-{part}") for part in range(3)] for number in range(40)]
    async with (
        open_stream(site, own_credentials(), compression=compression) as stream,
        stream.append_session() as session,
    ):
        tickets = [await session.submit(AppendInput(batch)) for batch in batches]
        acks = [await ticket for ticket in tickets]
        starts = [ack.start.seq_num for ack in acks]
        assert starts == list(range(starts[0], starts[0] + 120, 3))
        batch = await stream.read(start=SeqNum(starts[0]))
    assert [record.body for record in batch.records] == [record.body for batch in batches for record in batch]


@pytest.mark.parametrize("compression", Compression)
async def test_a_single_append_may_be_compressed(chat: Client, site: Site, compression: Compression) -> None:
    async with open_stream(site, own_credentials(), compression=compression) as stream:
        ack = await stream.append(AppendInput(numbered(100)))
        assert ack.end.seq_num - ack.start.seq_num == 100
    assert await data_of(chat) == list(range(100))


async def test_a_producer_gathers_single_records(chat: Client, site: Site) -> None:
    async with open_stream(site, own_credentials()) as stream:
        async with stream.producer(batching=Batching()) as producer:
            tickets = [await producer.submit(record) for record in numbered(250)]
            seqs = [(await ticket).seq_num for ticket in tickets]
        assert seqs == list(range(seqs[0], seqs[0] + 250))
    assert await data_of(chat) == list(range(250))


async def test_a_read_session_gives_what_is_there_and_what_comes(chat: Client, site: Site) -> None:
    async with asyncio.timeout(20), open_stream(site, own_credentials()) as stream:
        start = (await stream.append(AppendInput(numbered(3)))).start.seq_num
        seen: list[bytes] = []
        async for batch in stream.read_session(start=SeqNum(start)):
            seen += [record.body for record in batch.records]
            if len(seen) == 3:
                await chat.append("chat-1", "brokered", io="out")
            if len(seen) == 4:
                await stream.append(AppendInput(numbered(1, 4)))
            if len(seen) == 5:
                break
    assert json.loads(seen[3])["data"] == "brokered"
    assert seen[4] == numbered(1, 4)[0].body


async def test_a_read_session_ends_at_its_limit(chat: Client, site: Site) -> None:
    async with asyncio.timeout(20), open_stream(site, own_credentials()) as stream:
        start = (await stream.append(AppendInput(numbered(10)))).start.seq_num
        for limit, count in ((ReadLimit(count=7), 7), (ReadLimit(bytes=100), 3)):
            session = stream.read_session(start=SeqNum(start), limit=limit)
            found = [record.seq_num async for batch in session for record in batch.records]
            assert found == list(range(start, start + count))
        session = stream.read_session(start=SeqNum(start), wait=1)
        found = [record.seq_num async for batch in session for record in batch.records]
        assert found == list(range(start, start + 10)), "it ends after a second of silence"


async def test_reading_starts_where_it_is_asked_to(chat: Client, site: Site) -> None:
    async with open_stream(site, own_credentials()) as stream:
        start = (await stream.append(AppendInput(numbered(5)))).start.seq_num
        tail = await stream.check_tail()
        assert tail.seq_num == start + 5
        for at, first in (
            (SeqNum(start + 2), start + 2),
            (TailOffset(1), start + 4),
            (TailOffset(999_999), 0),
            (Timestamp(0), 0),
            (Timestamp(tail.timestamp), None),
        ):
            batch = await stream.read(start=at)
            expected = batch.records[0].seq_num if first is None else first
            assert batch.records[0].seq_num == expected
            assert batch.records[-1].seq_num == start + 4
        found = (await stream.read(start=Timestamp(tail.timestamp))).records
        assert all(record.timestamp >= tail.timestamp for record in found)


async def test_reading_what_is_not_written_is_refused_with_the_tail_or_waits(chat: Client, site: Site) -> None:
    async with asyncio.timeout(20), open_stream(site, own_credentials()) as stream:
        tail = (await stream.append(AppendInput(numbered(1)))).end.seq_num
        for at in (tail, tail + 5):
            with pytest.raises(ReadUnwrittenError) as refusal:
                await stream.read(start=SeqNum(at))
            assert refusal.value.tail.seq_num == tail
        waiting = asyncio.create_task(stream.read(start=SeqNum(tail + 5), clamp_to_tail=True, wait=10))
        while not site.sessions.hub.channels:
            await asyncio.sleep(0.01)
        await stream.append(AppendInput(numbered(1, 1)))
        assert [record.seq_num for record in (await waiting).records] == [tail]
        assert (await stream.read(start=SeqNum(tail + 1), wait=1)).records == []


async def test_a_condition_on_the_seq_is_kept(chat: Client, site: Site) -> None:
    async with open_stream(site, own_credentials()) as stream:
        tail = (await stream.append(AppendInput(numbered(1)))).end.seq_num
        with pytest.raises(SeqNumMismatchError) as refusal:
            await stream.append(AppendInput(numbered(1, 1), match_seq_num=tail + 1))
        assert refusal.value.expected_seq_num == tail
        ack = await stream.append(AppendInput(numbered(1, 1), match_seq_num=tail))
        assert ack.start.seq_num == tail
    assert await data_of(chat) == [0, 1]


async def test_a_fencing_token_is_the_guard(chat: Client, site: Site) -> None:
    epoch = await begin(site)
    async with open_stream(site, own_credentials()) as stream:
        await stream.append(AppendInput(numbered(1), fencing_token=f"live:{epoch}"))
        for token in ("", "live:7", "something"):
            with pytest.raises(FencingTokenMismatchError) as refusal:
                await stream.append(AppendInput(numbered(1, 1), fencing_token=token))
            assert refusal.value.expected_fencing_token == f"live:{epoch}"
        with pytest.raises(FencingTokenMismatchError):
            async with stream.append_session() as session:
                await (await session.submit(AppendInput(numbered(1, 2), fencing_token="live:7")))
    assert await data_of(chat) == [0]


async def test_a_fence_sets_the_guard_to_the_attempt_under_way_and_to_nothing_else(chat: Client, site: Site) -> None:
    session = await site.sessions.sessions.get(channel().environment_id, "chat-1")
    assert session.current_run_id is not None
    assert await site.sessions.ports.runs.begin(session.current_run_id, 1) is not None
    async with open_stream(site, own_credentials()) as stream:
        for token in ("live:2", "sealed:0", "idle:1", "mine"):
            assert (await refusal_of(stream, CommandRecord.fence(token))).code == "permission_denied"
        for _ in range(2):
            ack = await stream.append(AppendInput([CommandRecord.fence("live:1")]))
            assert ack.end.seq_num == ack.start.seq_num + 1
        await stream.append(AppendInput(numbered(1), fencing_token="live:1"))
        commands = [record for record in (await stream.read(start=SeqNum(0))).records if record.is_command_record()]
    assert [record.body for record in commands if record.body == b"live:1"]


async def test_a_trim_lets_records_go(chat: Client, site: Site) -> None:
    async with open_stream(site, own_credentials()) as stream:
        start = (await stream.append(AppendInput(numbered(5)))).start.seq_num
        ack = await stream.append(AppendInput([CommandRecord.trim(start + 3)]))
        assert ack.start.seq_num == start + 5
        batch = await stream.read(start=SeqNum(start))
        while len(batch.records) > 3:  # S2 lets them go when it likes
            batch = await stream.read(start=SeqNum(start))
    assert [record.seq_num for record in batch.records] == [start + 3, start + 4, start + 5]
    assert batch.records[2].is_command_record()


async def test_a_record_that_comes_again_is_stored_once_and_told_where_it_is(chat: Client, site: Site) -> None:
    await chat.append("chat-1", "brokered", part_id="part-1", io="out")
    async with open_stream(site, own_credentials()) as stream:
        first = await stream.append(AppendInput(numbered(3, 5)))
        again = await stream.append(AppendInput(numbered(3, 5)))
        assert (again.start.seq_num, again.end.seq_num) == (first.start.seq_num, first.end.seq_num)
        await stream.append(AppendInput([envelope("direct", "part-1")]))
    assert [record.get("id") for record in await chat.records("chat-1", "out") if record.get("id")] == [
        "part-1",
        "part-5",
        "part-6",
        "part-7",
    ]


async def test_a_direct_append_to_in_wakes_those_who_wait_and_carries_no_forged_mark(chat: Client, site: Site) -> None:
    run = (await chat.call("GET", "/api/v1/sessions/chat-1")).body["currentRunId"]
    body = {"session": "chat-1", "io": "in"}
    waitpoint = (await chat.call("POST", f"/api/v1/runs/{run}/session-streams/wait", body)).body["waitpointId"]
    forged = json.dumps({"kind": "message", "payload": {"actionSource": "webhook", "a": 1}})
    given = await token_for(site, way=Io.IN, tenure=FIRST_TENURE)
    async with open_stream(site, given) as stream:
        await stream.append(AppendInput([envelope(forged, "one"), envelope(json.loads(forged), "two")]))
    woken = (await chat.call("GET", f"/api/v1/waitpoints/tokens/{waitpoint}")).body
    assert woken["status"] == "COMPLETED"
    clean = {"kind": "message", "payload": {"a": 1}}
    assert await data_of(chat, "in") == [clean, clean]


async def test_credentials_for_in_write_data_and_nothing_else(chat: Client, site: Site) -> None:
    given = await token_for(site, way=Io.IN, tenure=FIRST_TENURE)
    async with open_stream(site, given) as stream:
        for record in (CommandRecord.trim(1), CommandRecord.fence("live:1"), Record(b"", [(b"trigger-control", b"x")])):
            assert (await refusal_of(stream, record)).status_code == 403
        assert (await refusal_of(stream, Record(b"text"))).status_code == 422
        with pytest.raises(S2ServerError) as refusal:
            await stream.check_tail()
        assert refusal.value.status_code == 403
    assert await data_of(chat, "in") == []


async def test_a_message_to_a_run_that_has_left_starts_another(chat: Client, site: Site) -> None:
    into, channels = channel(way=Io.IN), site.sessions.channels
    version = (await site.sessions.sessions.get(into.environment_id, "chat-1")).current_run_version
    read_to = (await channels.tail(into)).next_seq - 1
    assert await channels.gate.leave(into, version, read_to=read_to)
    given = await token_for(site, way=Io.IN, tenure=FIRST_TENURE)
    async with open_stream(site, given) as stream:
        await stream.append(AppendInput([envelope(message("hello"), "one")]))
    session = await site.sessions.sessions.get(channel().environment_id, "chat-1")
    assert session.current_run_version == version + 1


async def test_a_server_that_stops_ends_sessions_so_that_clients_come_back(chat: Client, site: Site) -> None:
    async with asyncio.timeout(20):
        given = own_credentials()
        frames = asyncio.create_task(call(site, "GET", given, query="?tail_offset=0", content_type="s2s/proto"))
        events = asyncio.create_task(call(site, "GET", given, query="?tail_offset=0", accept="text/event-stream"))
        while len(site.server.context.streams) < 2:
            await asyncio.sleep(0.01)
        site.server.context.streams.end()
        told = (await frames).frames
        assert (told.status, told.error["code"]) == (503, "server_draining")
        assert b'event: error\ndata: {"code":"server_draining"' in (await events).body


async def test_an_append_session_of_a_server_that_stops_ends_after_what_it_has_acknowledged(
    chat: Client, site: Site
) -> None:
    given = own_credentials()
    path = f"/v1/streams/{quote(given.stream, safe='')}/records"
    headers = [("authorization", f"Bearer {given.token}"), ("s2-basin", given.basin), ("content-type", SESSION)]
    async with asyncio.timeout(20), connect(site.port) as client:
        session = client.begin("POST", path, headers)
        batch = pb.AppendInput(records=[pb.AppendRecord(body=numbered(1)[0].body)])
        await session.send(encode_frame(batch.SerializeToString()))
        assert await session.piece() is not None, "the ack"
        site.server.context.streams.end()
        answer = Answer(200, {}, (await session.answer()).body)
    assert (answer.frames.status, answer.frames.error["code"]) == (503, "server_draining")
    assert await data_of(chat) == [0]
