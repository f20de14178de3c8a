"""Credentials of direct writers: handed out for one attempt of one run, and over when it is."""

from __future__ import annotations

import asyncio
import itertools

import attrs
import pytest
from s2_sdk import AppendInput, CommandRecord, ReadLimit, Record, S2ServerError, S2Stream, SeqNum

from harness.client import Client
from harness.direct import (
    OWN_LOGS,
    begin,
    credentials,
    data_of,
    envelope,
    numbered,
    open_stream,
    own_credentials,
    refusal_of,
    token_for,
)
from harness.in_process import ROOT_KEY, Site, session_token
from sessions_core.domain.channel import Io
from sessions_core.domain.direct import FIRST_TENURE, Tenure

CLOSED = "/api/v1/sessions/chat-1/close"
own_logs = pytest.mark.parametrize("profile", OWN_LOGS)


async def write_on(stream: S2Stream) -> None:
    """Write until it is refused."""
    for number in itertools.count(1):
        await stream.append(AppendInput(numbered(1, number)))


@own_logs
async def test_the_server_hands_out_credentials_for_its_own_endpoint(chat: Client, site: Site) -> None:
    async with open_stream(site, await credentials(site)) as stream:
        await stream.append(AppendInput(numbered(1)))
        await stream.append(AppendInput([CommandRecord.trim(0)]))
    browser = session_token(site, "chat-1")
    async with open_stream(site, await credentials(site, way="in", token=browser)) as stream:
        await stream.append(AppendInput([envelope("hi", "a")]))
    assert await data_of(chat) == [0]


@own_logs
async def test_a_session_that_does_not_exist_yet_can_be_written_until_it_does(client: Client, site: Site) -> None:
    given = await credentials(site)
    async with open_stream(site, given) as stream:
        await stream.append(AppendInput(numbered(1)))
        assert (await refusal_of(stream, CommandRecord.fence("live:1"))).status_code == 403
        await client.create("chat-1")
        await stream.append(AppendInput(numbered(1, 1)))
    assert await data_of(client) == [0, 1]


async def test_credentials_are_for_one_attempt_of_one_run(chat: Client, site: Site) -> None:
    before = await token_for(site, tenure=Tenure(run_version=1, last_epoch=1))
    async with open_stream(site, before) as stream:
        await stream.append(AppendInput(numbered(1)))
        assert await begin(site) == 1
        await stream.append(AppendInput(numbered(1, 1)))
        assert await begin(site, attempt=2) == 2
        refusal = await refusal_of(stream)
        assert (refusal.status_code, refusal.code) == (403, "permission_denied")
        assert (await refusal_of(stream, CommandRecord.trim(1))).status_code == 403
    assert await data_of(chat) == [0, 1]


async def test_credentials_end_within_a_second_of_their_run_being_replaced(chat: Client, site: Site) -> None:
    given = await token_for(site, tenure=FIRST_TENURE)
    run = (await chat.call("GET", "/api/v1/sessions/chat-1")).body["currentRunId"]
    async with asyncio.timeout(10), open_stream(site, given) as stream:
        await stream.append(AppendInput(numbered(1)))
        body = {"callingRunId": run, "reason": "x"}
        assert (await chat.call("POST", "/api/v1/sessions/chat-1/end-and-continue", body)).body["swapped"]
        with pytest.raises(S2ServerError) as refusal:
            await write_on(stream)
        assert refusal.value.status_code == 403


async def test_closed_is_closed_at_once(chat: Client, site: Site) -> None:
    given = [await token_for(site, way=io, tenure=FIRST_TENURE) for io in Io] + [own_credentials(way=io) for io in Io]
    async with open_stream(site, given[1]) as stream, stream.append_session() as session:
        await (await session.submit(AppendInput(numbered(1))))
        await chat.call("POST", CLOSED, {"reason": "done"})
        before = [await chat.records("chat-1", io) for io in ("in", "out")]
        for one in given:
            async with open_stream(site, one) as late:
                assert (await refusal_of(late)).code == "permission_denied"
                if "/out" in one.stream:
                    assert (await refusal_of(late, CommandRecord.trim(1))).code == "permission_denied"
        with pytest.raises(S2ServerError) as refusal:
            await (await session.submit(AppendInput(numbered(1, 1))))
        assert refusal.value.status_code == 403
        with pytest.raises(S2ServerError):
            await session.close()
    assert [await chat.records("chat-1", io) for io in ("in", "out")] == before


async def test_other_credentials_do_what_they_may_on_the_same_routes(chat: Client, site: Site) -> None:
    reader = site.sign(["read:sessions:chat-1"])
    writer = site.sign(["write:sessions:chat-1"])
    for token, io, may_read, may_append in (
        (reader, Io.IN, True, False),
        (reader, Io.OUT, True, False),
        (writer, Io.IN, False, True),
        (writer, Io.OUT, False, False),
        (site.sign(["read:sessions:other", "write:sessions:other"]), Io.IN, False, False),
    ):
        async with open_stream(site, own_credentials(way=io, token=token)) as stream:
            if may_read:
                await stream.check_tail()
            else:
                with pytest.raises(S2ServerError) as refusal:
                    await stream.check_tail()
                assert refusal.value.status_code == 403
            if may_append:
                await stream.append(AppendInput(numbered(1)))
            else:
                assert (await refusal_of(stream)).status_code == 403
            assert (await refusal_of(stream, CommandRecord.trim(1))).status_code == 403


async def test_session_tokens_in_records_are_not_for_every_reader(chat: Client, site: Site) -> None:
    secret = Record(b"", [(b"trigger-control", b"turn-complete"), (b"public-access-token", b"secret")])
    async with open_stream(site, own_credentials()) as stream:
        start = (await stream.append(AppendInput([secret]))).start.seq_num
        assert (await stream.read(start=SeqNum(start))).records[0].headers == secret.headers
    reader = own_credentials(token=site.sign(["read:sessions:chat-1"]))
    async with asyncio.timeout(20), open_stream(site, reader) as stream:
        assert (await stream.read(start=SeqNum(start))).records[0].headers == secret.headers[:1]
        async for batch in stream.read_session(start=SeqNum(start), limit=ReadLimit(count=1)):
            assert batch.records[0].headers == secret.headers[:1]


@own_logs
async def test_credentials_name_the_public_address_if_one_is_set(site: Site, chat: Client) -> None:
    config = attrs.evolve(site.server.context.config, public_url="https://sessions.example/base/")
    site.server._pipeline._context = attrs.evolve(site.server.context, config=config)
    answer = await site.client(ROOT_KEY).call("PUT", "/realtime/v1/sessions/chat-1/out")
    assert answer.headers["X-S2-Endpoint"] == "https://sessions.example/base/v1"
