"""One-time tokens over HTTP: of whatever comes at once, one change happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from harness.client import Answer, Client
from harness.in_process import ROOT_KEY, Site, session_token
from sessions_core.domain.access import session_scopes

CROWD = 50
Change = Callable[[Client], Awaitable[Answer]]
CHANGES: dict[str, Change] = {
    "create": lambda holder: holder.create("chat-2"),
    "append": lambda holder: holder.append("chat-1", "x"),
    "hand over": lambda holder: holder.call(
        "POST", "/api/v1/sessions/chat-1/end-and-continue", {"callingRunId": "run_x", "reason": "manual"}
    ),
    "update": lambda holder: holder.call("PATCH", "/api/v1/sessions/chat-1", {"tags": ["t"]}),
    "close": lambda holder: holder.call("POST", "/api/v1/sessions/chat-1/close"),
}


def once(site: Site, name: str = "chat-1") -> Client:
    """Return somebody who may do anything, once."""
    return site.client(site.sign(["admin", *session_scopes(name)], otu=True))


async def test_of_many_appends_at_once_one_is_stored(client: Client, site: Site) -> None:
    await client.create("chat-1")
    holder = site.client(session_token(site, "chat-1", otu=True))
    answers = await asyncio.gather(*(holder.append("chat-1", f"text {number}") for number in range(CROWD)))
    assert sorted(answer.status for answer in answers) == [200] + [401] * (CROWD - 1)
    [record] = await client.records("chat-1", "in")
    [stored] = [number for number, answer in enumerate(answers) if answer.status == 200]
    assert f"text {stored}" in str(record)


async def test_of_different_changes_at_once_one_happens(client: Client, site: Site) -> None:
    await client.create("chat-1")
    holder = once(site)
    answers = await asyncio.gather(*(change(holder) for change in CHANGES.values()))
    refused = [answer for answer in answers if answer.status == 401]
    assert len(refused) == len(CHANGES) - 1
    assert {answer.body["code"] for answer in refused} == {"unauthenticated"}


@pytest.mark.parametrize("profile", ["memory"])
@pytest.mark.parametrize("name", CHANGES)
async def test_every_change_uses_it_up(client: Client, site: Site, name: str) -> None:
    await client.create("chat-1")
    holder = once(site)
    assert (await CHANGES[name](holder)).status != 401
    assert (await holder.append("chat-1", "y")).status == 401
    assert (await holder.call("GET", "/api/v1/sessions/chat-1")).status == 200, "reading does not count"


@pytest.mark.parametrize("profile", ["memory"])
async def test_what_is_refused_before_it_begins_does_not_count(client: Client, site: Site) -> None:
    await client.create("chat-1")
    holder = site.client(session_token(site, "chat-1", otu=True))
    assert (await holder.append("other", "x")).status == 403
    assert (await holder.call("POST", "/api/v1/sessions", "{")).status == 400
    assert (await holder.append("chat-1", "x", io="out")).status == 403
    assert (await holder.append("chat-1", "x")).status == 200


@pytest.mark.parametrize("profile", ["memory"])
async def test_what_is_let_in_and_then_fails_counts(client: Client, site: Site) -> None:
    await client.create("chat-1")
    holder = once(site)
    answers = [await holder.call("PATCH", "/api/v1/sessions/chat-1", {"externalId": "chat-2"}) for _ in range(2)]
    assert [answer.status for answer in answers] == [422, 401]


async def test_it_gets_no_credentials_of_a_direct_writer_which_are_good_for_many_changes(
    client: Client, site: Site
) -> None:
    await client.create("chat-1")
    holder = site.client(session_token(site, "chat-1", otu=True))
    refused = await holder.call("PUT", "/realtime/v1/sessions/chat-1/in")
    assert (refused.status, refused.body["code"]) == (403, "unauthorized")
    assert (await holder.append("chat-1", "x")).status == 200, "and that did not count"


@pytest.mark.parametrize("profile", ["memory"])
async def test_two_that_are_minted_in_the_same_second_are_two(site: Site) -> None:
    issuer, wish = site.client(ROOT_KEY), {"scopes": ["write:sessions:chat-1"], "oneTimeUse": True}
    await issuer.create("chat-1")
    for answer in await asyncio.gather(
        *(issuer.call("POST", "/api/v1/auth/public-tokens", wish) for _ in range(CROWD))
    ):
        assert (await site.client(answer.body["token"]).append("chat-1", "x")).status == 200
