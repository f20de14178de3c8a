"""A stream ends, cleanly, when what opened it is taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest

from harness.client import Client, Frame
from harness.in_process import ENVIRONMENT, ROOT_KEY, Site, session_token
from sessions_core.errors import StoreUnavailableError
from sessions_server import auth

NARROW_KEY = "tr_dev_sk_" + "s" * 24
NEW_KEY = "tr_dev_" + "n" * 24
PATIENCE = 30
DONE = "[DONE]"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at credentials of open streams all the time."""
    monkeypatch.setattr(auth, "RECHECK_SECONDS", 0.05)


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
            patched.setattr(auth.Authenticator, "authenticate", lambda _, header: silent(header))
            async with asyncio.timeout(PATIENCE):
                while looks < 3:
                    await asyncio.sleep(0.01)
        await client.append("chat-1", "still here", io="out")
        async with asyncio.timeout(PATIENCE):
            while (frame := await anext(events)).event != "batch":
                pass
    assert "still here" in str(frame.records)
