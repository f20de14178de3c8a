"""Whoever shows credentials that do not work is answered without a look before long, and nobody else has less for it."""

from __future__ import annotations

from typing import Any

import pytest

from harness.in_process import ENVIRONMENT, OTHER_KEY, session_token
from harness.limits import READ, Opened, never_more, reads, refused

ORIGIN = "https://app.example"
NARROW_KEY = "tr_dev_sk_" + "s" * 24


async def test_an_address_that_guesses_is_answered_without_looking(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(guess_rate=never_more(5)) as site:
        looked = 0
        find = type(site.sessions.environments).find_grant

        async def count(store: Any, key: str) -> Any:
            nonlocal looked
            looked += 1
            return await find(store, key)

        monkeypatch.setattr(type(site.sessions.environments), "find_grant", count)
        assert await reads(site.client(), 1) == [404]
        answers = [await site.client(f"tr_dev_{number:024d}").call("GET", READ, Origin=ORIGIN) for number in range(50)]
        assert [answer.status for answer in answers] == [401] * 5 + [429] * 45
        assert looked == 6
        assert answers[-1].body["code"] == "rate_limited"
        assert answers[-1].headers["Access-Control-Allow-Origin"] == ORIGIN
        assert await refused(site, "address") == 45
        assert await reads(site.client(), 1) == [404], "who is known gets through"
        assert await reads(site.client(OTHER_KEY), 1) == [429], "who is not may be another guess"


async def test_a_known_credential_gets_through_also_when_it_has_to_be_looked_up_again(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(guess_rate=never_more(1)) as site:
        token = site.client(session_token(site, "chat-1"))
        assert await reads(site.client(), 1) == await reads(token, 1) == [404]
        assert await reads(site.client("tr_dev_wrong"), 2) == [401, 429]
        monkeypatch.setattr("sessions_server.auth.authenticator.KEY_SECONDS", -1.0)
        assert await reads(site.client(), 3) == await reads(token, 3) == [404] * 3


async def test_a_key_that_was_revoked_becomes_a_guess(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessions_server.auth.authenticator.KEY_SECONDS", -1.0)
    async with opened(guess_rate=never_more(3)) as site:
        store = site.sessions.environments
        key = await store.add_key(ENVIRONMENT, NARROW_KEY, ["read:sessions"])
        narrow = site.client(NARROW_KEY)
        assert await reads(narrow, 1) == [404]
        await store.revoke_key(ENVIRONMENT, key.id)
        assert await reads(narrow, 6) == [401, 401, 401, 401, 429, 429], "the first one was none yet"


async def test_behind_a_proxy_guesses_are_counted_for_its_clients(opened: Opened) -> None:
    async with opened(guess_rate=never_more(2), client_address_header="X-Real-IP") as site:
        guesser = [await site.client("wrong").call("GET", READ, X_Real_IP="192.0.2.1") for _ in range(3)]
        assert [answer.status for answer in guesser] == [401, 401, 429]
        assert (await site.client("wrong").call("GET", READ, X_Real_IP="192.0.2.2")).status == 401


async def test_no_credential_is_no_guess(opened: Opened) -> None:
    async with opened(guess_rate=never_more(1)) as site:
        for _ in range(5):
            async with site.http.get(site.address + READ) as response:
                assert response.status == 401
        assert await reads(site.client("wrong"), 2) == [401, 429]
