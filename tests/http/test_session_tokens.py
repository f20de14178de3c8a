"""The session token that rides on a turn-complete: who gets it, and what it can do."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.client import Client, is_control
from harness.in_process import ENVIRONMENT, Site, open_site, session_token, until_the_next_second
from sessions_core.domain.channel import PUBLIC_ACCESS_TOKEN
from sessions_server.bundled import agents

READ_ONLY = ["read:sessions:chat-1"]


@pytest.fixture
async def site(profile: str, tmp_path: Path) -> AsyncGenerator[Site]:
    """A server that carries its runs out."""
    async with open_site(profile, tmp_path, agents=agents) as opened:
        yield opened


async def completed(client: Client, after: int | None = None) -> dict[str, Any]:
    """Return the headers of the next turn-complete in the stream."""
    async with client.subscribe("chat-1", after=after, window=10) as (_, events):
        async for frame in events:
            for record in frame.records:
                if is_control(record, "turn-complete"):
                    return {**dict(record["headers"]), "seq": record["seq_num"]}
    raise AssertionError("no turn-complete")


async def drained(client: Client) -> list[str | None]:
    """Return the tokens of the turn-completes in a drain."""
    headers = [dict(record.get("headers", [])) for record in await client.records("chat-1", "out")]
    return [found.get(PUBLIC_ACCESS_TOKEN) for found in headers if "trigger-control" in found]


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


async def test_a_creators_token_is_refreshed_by_every_turn(site: Site, client: Client) -> None:
    first = (await client.create("chat-1")).body["publicAccessToken"]
    browser = site.client(first)
    seen: list[str] = []
    after = None
    for _ in range(2):
        await browser.say("chat-1", "hello")
        headers = await completed(browser, after)
        seen.append(headers[PUBLIC_ACCESS_TOKEN])
        after = int(headers["seq"])
        browser = site.client(seen[-1])
        await until_the_next_second(site)
    assert seen[0] != seen[1]
    expected = {"read:sessions:chat-1", "write:sessions:chat-1"}
    assert all(set(claims_of(token)["scopes"]) == expected for token in seen)
    assert claims_of(seen[1])["exp"] > claims_of(seen[0])["exp"] >= claims_of(first)["exp"]
    assert await drained(browser) == seen


async def test_a_refreshed_token_can_do_what_the_first_one_could_and_no_more(site: Site, client: Client) -> None:
    await client.create("chat-1")
    await client.create("other")
    await client.say("chat-1", "hello")
    token = (await completed(client))[PUBLIC_ACCESS_TOKEN]
    browser = site.client(token)
    assert claims_of(token)["sub"] == ENVIRONMENT
    assert (await browser.say("chat-1", "again")).status == 200
    assert (await browser.say("other", "hello")).status == 403
    assert (await browser.append("chat-1", "x", io="out")).status == 403
    assert (await browser.call("POST", "/api/v1/sessions/chat-1/close", {})).status == 403


@pytest.mark.parametrize("name", ["friendly", "external"])
@pytest.mark.parametrize(
    "kind", ["reader", "short-lived", "one-time", "writer of something else", "key that reads", "key that ends"]
)
async def test_who_could_not_do_as_much_and_for_as_long_does_not_see_it(
    site: Site, client: Client, kind: str, name: str, first: int
) -> None:
    created = (await client.create("chat-1")).body
    target = created["id"] if name == "friendly" else "chat-1"
    await client.say("chat-1", "hello")
    assert await completed(client)
    store, ends = site.sessions.environments, datetime.now(UTC) + timedelta(minutes=5)
    await store.add_key(ENVIRONMENT, "tr_dev_sk_" + "r" * 24, ["read:sessions"])
    await store.add_key(ENVIRONMENT, "tr_dev_sk_" + "e" * 24, ["admin"], expires_at=ends)
    credentials = {
        "reader": site.sign([f"read:sessions:{target}"]),
        "short-lived": session_token(site, target),
        "one-time": session_token(site, target, otu=True),
        "writer of something else": site.sign([f"read:sessions:{target}", "write:sessions:chat-2"], rolling=True),
        "key that reads": "tr_dev_sk_" + "r" * 24,
        "key that ends": "tr_dev_sk_" + "e" * 24,
    }
    stranger = site.client(credentials[kind])
    headers = await completed(stranger)
    assert PUBLIC_ACCESS_TOKEN not in headers
    assert headers["session-in-event-id"] == str(first)
    assert await drained(stranger) == [None]
    assert PUBLIC_ACCESS_TOKEN in await completed(client), "and others still do"


async def test_readers_of_both_kinds_follow_the_same_turn(site: Site, client: Client) -> None:
    token = (await client.create("chat-1")).body["publicAccessToken"]
    readers = [site.client(token), site.client(site.sign(READ_ONLY)), client, site.client(site.sign(READ_ONLY))]
    waiting = [asyncio.create_task(completed(reader)) for reader in readers]
    await client.say("chat-1", "hello")
    headers = [await one for one in waiting]
    assert [PUBLIC_ACCESS_TOKEN in found for found in headers] == [True, False, True, False]
    assert len({found["seq"] for found in headers}) == 1


async def test_a_token_that_was_given_for_a_shorter_time_is_not_prolonged(site: Site, client: Client) -> None:
    """Who creates a session with a credential that ends gets a token that ends with it, for good."""
    await client.create("chat-1")
    creator = site.client(site.sign(["write:sessions", "write:tasks", "read:sessions"], seconds=300))
    token = (await creator.create("chat-1")).body["publicAccessToken"]
    await client.say("chat-1", "hello")
    assert claims_of(token).get("rolling") is None
    assert PUBLIC_ACCESS_TOKEN not in await completed(site.client(token))


async def test_only_a_root_keys_holder_can_make_a_token_roll(site: Site, client: Client) -> None:
    await client.create("chat-1")
    await client.say("chat-1", "hello")
    assert PUBLIC_ACCESS_TOKEN in await completed(site.client(session_token(site, "chat-1", rolling=True)))
    body = {"scopes": ["read:sessions:chat-1", "write:sessions:chat-1"], "rolling": True}
    minted = (await client.call("POST", "/api/v1/auth/public-tokens", body)).body["token"]
    assert PUBLIC_ACCESS_TOKEN not in await completed(site.client(minted))
