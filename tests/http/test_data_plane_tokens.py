"""Fencing tokens and credentials of direct writers: whatever token a writer names, it gets no further than it may."""

from __future__ import annotations

from typing import Any

import pytest
from s2_sdk import AppendInput, FencingTokenMismatchError, Record, S2ServerError

from harness.client import Client
from harness.direct import OWN_LOGS, begin, channel, credentials, open_stream, own_credentials, token_for
from harness.in_process import ENVIRONMENT, Site, session_token
from sessions_core.domain.channel import Io
from sessions_core.domain.direct import Tenure
from sessions_core.domain.ids import EnvironmentId
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Session
from sessions_core.errors import SessionNotFoundError
from sessions_core.services.session_service import SessionService

own_logs = pytest.mark.parametrize("profile", OWN_LOGS)


def said(text: str) -> AppendInput:
    return AppendInput([Record(b'{"data":"%b","id":"%b"}' % (text.encode(), text.encode()))])


async def test_no_token_makes_a_message_strand_in_front_of_a_run_that_has_left(chat: Client, site: Site) -> None:
    into, channels = channel(way=Io.IN), site.sessions.channels
    browser = own_credentials(way=Io.IN, token=session_token(site, "chat-1"))
    async with open_stream(site, browser) as stream:
        await stream.append(said("one"))
        version = (await site.sessions.sessions.get(ENVIRONMENT, "chat-1")).current_run_version
        tail = await channels.tail(into)
        assert await channels.gate.leave(into, version, read_to=tail.next_seq - 1)
        for token in ("", f"idle:{version}"):
            with pytest.raises(S2ServerError) as refusal:
                await stream.append(AppendInput(said("two").records, fencing_token=token))
            assert (refusal.value.status_code, refusal.value.code) == (422, "invalid")
        with pytest.raises(FencingTokenMismatchError):
            await stream.append(AppendInput(said("two").records, fencing_token=f"live:{version}"))
        await stream.append(said("two"))
        session = await site.sessions.sessions.get(ENVIRONMENT, "chat-1")
        assert session.current_run_version == version + 1, "somebody is going to read it"
        await stream.append(AppendInput(said("three").records, fencing_token=f"live:{version + 1}"))
    assert [record["data"] for record in await chat.records("chat-1", "in")] == ["one", "two", "three"]


async def test_who_names_the_next_attempts_token_does_not_write_as_it(chat: Client, site: Site) -> None:
    assert await begin(site) == 1
    before = await token_for(site, tenure=Tenure(run_version=1, last_epoch=1))
    async with open_stream(site, before) as stream:
        await stream.append(AppendInput(said("one").records, fencing_token="live:1"))
        with pytest.raises(FencingTokenMismatchError) as mismatch:
            await stream.append(AppendInput(said("early").records, fencing_token="live:2"))
        assert mismatch.value.expected_fencing_token == "live:1"
        assert await begin(site, attempt=2) == 2
        for token in ("live:1", "live:2", "live:3"):
            with pytest.raises(S2ServerError) as refusal:
                await stream.append(AppendInput(said("late").records, fencing_token=token))
            if token != "live:1":
                assert (refusal.value.status_code, refusal.value.code) == (403, "permission_denied")
    assert [record["data"] for record in await chat.records("chat-1", "out")] == ["one"]


@own_logs
async def test_what_is_written_ahead_of_a_session_meets_its_beginning_unharmed(
    client: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = SessionService.get
    given = await credentials(site)

    async def find_just_before_it_begins(service: SessionService, environment: EnvironmentId, name: str) -> Session:
        monkeypatch.setattr(SessionService, "get", find)
        await client.create("chat-1")
        assert await begin(site) == 1
        raise SessionNotFoundError(name)

    monkeypatch.setattr(SessionService, "get", find_just_before_it_begins)
    async with open_stream(site, given) as stream:
        await stream.append(said("one"))
    assert [record["data"] for record in await client.records("chat-1", "out")] == ["one"]


@own_logs
async def test_credentials_that_are_asked_for_while_an_attempt_begins_are_good_for_it(
    chat: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = SessionService.get_run

    async def find_just_after_it_began(service: SessionService, *names: Any) -> RunRecord:
        monkeypatch.setattr(SessionService, "get_run", find)
        assert await begin(site) == 1
        return await find(service, *names)

    monkeypatch.setattr(SessionService, "get_run", find_just_after_it_began)
    async with open_stream(site, await credentials(site)) as stream:
        await stream.append(said("one"))
        assert await begin(site, attempt=2) == 2
        with pytest.raises(S2ServerError) as refusal:
            await stream.append(said("two"))
        assert refusal.value.status_code == 403
    assert [record["data"] for record in await chat.records("chat-1", "out")] == ["one"]
