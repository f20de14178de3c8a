"""A stream ends, cleanly, when what opened it is taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import attrs
import pytest

from harness import direct
from harness.attempts import begin
from harness.client import Client, Frame
from harness.in_process import ENVIRONMENT, ROOT_KEY, Site, session_token
from harness.sockets import said, sent
from sessions_core.domain.channel import PUBLIC_ACCESS_TOKEN
from sessions_core.domain.environment import RootKey
from sessions_core.errors import StoreUnavailableError
from sessions_core.services import token_issuer
from sessions_server import streams
from sessions_server.auth import authenticator, tokens
from sessions_server.limits.unfinished_bytes import REQUEST_BYTES

NARROW_KEY = "tr_dev_sk_" + "s" * 24
NEW_KEY = "tr_dev_" + "n" * 24
PATIENCE = 30
DONE = "[DONE]"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at credentials of open streams all the time."""
    monkeypatch.setattr(streams, "RECHECK_SECONDS", 0.05)


@pytest.fixture
def profile() -> str:
    return "embedded"


async def keep_busy(client: Client) -> None:
    """Write records for ever, so that no window passes."""
    while True:
        await client.append("chat-1", "x", io="out")


async def read_to_end(events: AsyncGenerator[Frame]) -> Frame:
    """Return the last frame."""
    async with asyncio.timeout(PATIENCE):
        return [frame async for frame in events][-1]


@pytest.mark.parametrize("kind", ["revoked key", "rotated key", "token of a rotated key"])
async def test_a_busy_stream_ends_when_its_credential_is_taken_back(client: Client, site: Site, kind: str) -> None:
    store = site.sessions.environments
    key = await store.add_key(ENVIRONMENT, NARROW_KEY, ["read:sessions"])
    await client.create("chat-1")
    credential = {"revoked key": NARROW_KEY, "rotated key": ROOT_KEY}.get(kind) or session_token(site, "chat-1")
    async with site.client(credential).subscribe("chat-1") as (_, events):
        assert (await anext(events)).event == "ping"
        if kind == "revoked key":
            busy = asyncio.create_task(keep_busy(client))
            await store.revoke_key(ENVIRONMENT, key.id)
        else:
            await store.rotate_root_key(ENVIRONMENT, NEW_KEY, grace=timedelta())
            busy = asyncio.create_task(keep_busy(site.client(NEW_KEY)))
        try:
            assert (await read_to_end(events)).data == DONE
        finally:
            busy.cancel()
    assert (await site.client(credential).call("GET", "/api/v1/sessions/chat-1")).status == 401


async def test_a_stream_goes_on_while_its_credential_works_or_nobody_can_tell(
    client: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    async def silent(header: str | None) -> None:
        nonlocal looks
        looks += 1
        raise StoreUnavailableError

    await client.create("chat-1")
    async with client.subscribe("chat-1") as (_, events):
        assert (await anext(events)).event == "ping"
        with monkeypatch.context() as patched:
            patched.setattr(authenticator.Authenticator, "authenticate", lambda _, header: silent(header))
            async with asyncio.timeout(PATIENCE):
                while looks < 3:
                    await asyncio.sleep(0.01)
        await client.append("chat-1", "still here", io="out")
        async with asyncio.timeout(PATIENCE):
            while (frame := await anext(events)).event != "batch":
                pass
    assert "still here" in str(frame.records)


@pytest.mark.parametrize(
    ("kind", "grace"),
    [
        ("rotated key", timedelta()),
        ("rotated key", timedelta(hours=1)),
        ("token of a rotated key", timedelta()),
    ],
)
async def test_no_token_of_the_new_key_reaches_who_came_with_the_old_one(
    client: Client, site: Site, kind: str, grace: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever has stolen a credential would go on with the token of the next turn."""
    monkeypatch.setattr(streams, "RECHECK_SECONDS", 3600.0)
    monkeypatch.setattr(token_issuer, "KEY_SECONDS", -1.0)
    run = (await client.create("chat-1", task="carried out here")).body["runId"]
    thief = site.client(ROOT_KEY if kind == "rotated key" else session_token(site, "chat-1", rolling=True))
    async with thief.subscribe("chat-1") as (_, events):
        assert (await anext(events)).event == "ping"
        await (attempt := await begin(client, run)).write(turnComplete={"lastSeqNum": -1})
        assert signers_of(await take(events)) == [ROOT_KEY]
        await site.sessions.environments.rotate_root_key(ENVIRONMENT, NEW_KEY, grace=grace)
        owner = site.client(NEW_KEY)
        await attrs.evolve(attempt, client=owner).write(turnComplete={"lastSeqNum": -1})
        assert signers_of(await take(events)) == []
        await owner.append("chat-1", "the stream itself goes on", io="out")
        assert "goes on" in str(await take(events))
    assert signers_of(await owner.records("chat-1", "out")) == [ROOT_KEY, NEW_KEY]


async def test_nor_does_it_reach_who_asks_in_the_second_in_which_the_old_key_is_still_believed(
    client: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_issuer, "KEY_SECONDS", -1.0)
    run = (await client.create("chat-1", task="carried out here")).body["runId"]
    attempt = await begin(client, run)
    await site.sessions.environments.rotate_root_key(ENVIRONMENT, NEW_KEY, grace=timedelta())
    await attrs.evolve(attempt, client=site.client(NEW_KEY)).write(turnComplete={"lastSeqNum": -1})
    drained = await client.call("GET", "/realtime/v1/sessions/chat-1/out/records")
    seen = [drained.body] if drained.status == 200 else []
    assert signers_of([record for body in seen for record in body["records"]]) == []
    streamed = await direct.call(site, "GET", direct.own_credentials(), query="?seq_num=0")
    assert streamed.status == 401
    assert (await attempt.call("heartbeat")).body.get("token") is None
    assert (await client.call("PUT", "/realtime/v1/sessions/chat-1/out")).status == 401
    assert signers_of(await site.client(NEW_KEY).records("chat-1", "out")) == [NEW_KEY]


async def test_a_key_in_its_grace_reads_on_without_tokens_of_the_new_one(
    client: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_issuer, "KEY_SECONDS", -1.0)
    run = (await client.create("chat-1", task="carried out here")).body["runId"]
    attempt = await begin(client, run)
    await site.sessions.environments.rotate_root_key(ENVIRONMENT, NEW_KEY, grace=timedelta(hours=1))
    owner = site.client(NEW_KEY)
    await attrs.evolve(attempt, client=owner).write(turnComplete={"lastSeqNum": -1})
    assert signers_of(await client.records("chat-1", "out")) == []
    for _ in range(2):  # in the second in which it is not known yet that it will end, and when it is
        read = await direct.call(site, "GET", direct.own_credentials(), query="?seq_num=0")
        assert (read.status, len(read.json["records"])) == (200, 1)
        assert PUBLIC_ACCESS_TOKEN not in str(read.json)
        await client.call("GET", "/api/v1/sessions/chat-1")
        monkeypatch.setattr(authenticator, "KEY_SECONDS", -1.0)
    assert (await attempt.call("heartbeat")).body.get("token") is None
    assert PUBLIC_ACCESS_TOKEN in str((await direct.call(site, "GET", with_key(NEW_KEY), query="?seq_num=0")).json)


def with_key(key: str) -> direct.Credentials:
    return direct.own_credentials(token=key)


async def test_one_credential_that_cannot_be_looked_at_keeps_no_other_stream_from_ending(
    client: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = site.sessions.environments
    key = await store.add_key(ENVIRONMENT, NARROW_KEY, ["read:sessions"])
    await client.create("chat-1")
    find = type(store).find_grant

    async def broken(self: Any, shown: str) -> Any:
        if shown == ROOT_KEY:
            raise RuntimeError("nobody has foreseen this")
        return await find(self, shown)

    async with client.subscribe("chat-1") as (_, first), site.client(NARROW_KEY).subscribe("chat-1") as (_, second):
        assert [(await anext(events)).event for events in (first, second)] == ["ping", "ping"]
        monkeypatch.setattr(type(store), "find_grant", broken)
        await store.revoke_key(ENVIRONMENT, key.id)
        assert (await read_to_end(second)).data == DONE


async def take(events: AsyncGenerator[Frame]) -> list[dict[str, Any]]:
    """Return the records of the next batch."""
    async with asyncio.timeout(PATIENCE):
        return await anext(frame.records async for frame in events if frame.records)


def signers_of(records: list[dict[str, Any]]) -> list[str]:
    """Return the key that has signed each session token in *records*."""
    found = [value for record in records for name, value in record.get("headers", []) if name == PUBLIC_ACCESS_TOKEN]
    keys = (ROOT_KEY, NEW_KEY)
    return [key for token in found for key in keys if tokens.signed_claims(token, RootKey(value=key)) is not None]


@pytest.mark.parametrize("kind", ["revoked key", "rotated key", "token of a rotated key"])
async def test_a_body_that_ends_after_its_credential_changes_nothing(client: Client, site: Site, kind: str) -> None:
    """Else whoever is found out could go on for as long as a body may take, with as many as he has begun."""
    store = site.sessions.environments
    key = await store.add_key(ENVIRONMENT, NARROW_KEY, ["write:sessions", "admin:sessions"])
    await client.create("chat-1")
    credential = {"revoked key": NARROW_KEY, "rotated key": ROOT_KEY}.get(kind) or session_token(site, "chat-1")
    paths = ["/realtime/v1/sessions/chat-1/in/append", "/api/v1/sessions/chat-1/close"]
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        begun = [await stack.enter_async_context(sent(site, begin_body(path, credential))) for path in paths]
        while site.server.context.limits.unfinished.held < len(begun) * REQUEST_BYTES:
            await asyncio.sleep(0.01)
        if kind == "revoked key":
            await store.revoke_key(ENVIRONMENT, key.id)
        else:
            await store.rotate_root_key(ENVIRONMENT, NEW_KEY, grace=timedelta())
        await asyncio.sleep(authenticator.KEY_SECONDS)  # for so long it is still believed
        for reader, writer in begun:
            writer.write(b"}")
            assert (await said(reader)).status == 401
    owner = client if kind == "revoked key" else site.client(NEW_KEY)
    assert (await owner.call("GET", "/api/v1/sessions/chat-1")).body["closedAt"] is None
    assert await owner.records("chat-1", "in") == []


def begin_body(path: str, credential: str) -> bytes:
    """Return a request without the last byte of its body."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {credential}\r\nContent-Length: 2\r\n\r\n{{".encode()
    )


async def test_a_wait_is_not_answered_when_its_credential_is_taken_back(client: Client, site: Site) -> None:
    run = (await client.create("chat-1")).body["runId"]
    made = await client.call("POST", f"/api/v1/runs/{run}/session-streams/wait", {"session": "chat-1", "io": "in"})
    path = f"/api/v1/waitpoints/tokens/{made.body['waitpointId']}"
    waiting = asyncio.create_task(client.call("GET", path, Timeout_Seconds="600"))
    async with asyncio.timeout(PATIENCE):
        while not len(site.server.context.streams):
            await asyncio.sleep(0.01)
        await site.sessions.environments.rotate_root_key(ENVIRONMENT, NEW_KEY, grace=timedelta())
        answer = await waiting
    assert (answer.status, answer.body["code"]) == (401, "unauthenticated")
