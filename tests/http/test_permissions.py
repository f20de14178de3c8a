"""Who may do what over HTTP: scopes, keys and tokens in detail. Every route with every kind of credential is asked in test_authorization.py."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest

from harness.client import Client
from harness.in_process import ENVIRONMENT, OTHER_ENVIRONMENT, OTHER_KEY, ROOT_KEY, Site, session_token


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        (["write:tasks:one"], 201),
        (["write:tasks"], 201),
        (["write:sessions"], 201),
        (["write:all"], 201),
        (["admin"], 201),
        (["*:all"], 201),
        (["write:tasks:two"], 403),
        (["read:tasks:one"], 403),
        (["write:sessions:chat-1"], 403),
        (["admin:sessions"], 403),
        ([], 403),
    ],
)
async def test_creating_asks_for_the_task(site: Site, scopes: list[str], status: int) -> None:
    answer = await site.client(site.sign(scopes)).create("chat-1", task="one")
    assert answer.status == status
    assert await site.count_sessions() == (status == 201)


async def test_a_token_for_one_task_gets_nothing_of_another_tasks_session(client: Client, site: Site) -> None:
    await client.create("chat-1", task="two")
    stranger = await site.client(site.sign(["write:tasks:one"])).create("chat-1", task="one")
    assert (stranger.status, stranger.body["code"]) == (403, "unauthorized")
    both = await site.client(site.sign(["write:tasks:one", "write:tasks:two"])).create("chat-1", task="one")
    assert (both.status, both.body["code"]) == (409, "task_mismatch")


@pytest.mark.parametrize(
    ("scopes", "query", "status"),
    [
        (["read:sessions"], "", 200),
        (["read:tasks"], "", 200),
        (["read:tasks:one"], "", 403),
        (["read:tasks:one"], "one", 200),
        (["read:tasks:one"], "one,two", 403),
        (["read:tasks:one", "read:tasks:two"], "one,two", 200),
        (["read:sessions:chat-1"], "", 403),
        (["write:sessions"], "", 403),
    ],
)
async def test_listing_asks_for_every_task(site: Site, scopes: list[str], query: str, status: int) -> None:
    path = f"/api/v1/sessions?filter%5BtaskIdentifier%5D={query}" if query else "/api/v1/sessions"
    assert (await site.client(site.sign(scopes)).call("GET", path)).status == status


@pytest.mark.parametrize("scope", ["admin:sessions:chat-1", "admin:sessions", "admin:all", "admin"])
async def test_closing_asks_for_admin(client: Client, site: Site, scope: str) -> None:
    await client.create("chat-1")
    assert (await site.client(site.sign(["write:all"])).call("POST", "/api/v1/sessions/chat-1/close")).status == 403
    assert (await site.client(site.sign([scope])).call("POST", "/api/v1/sessions/chat-1/close")).status == 200


async def test_the_created_token_works_on_either_id(client: Client, site: Site) -> None:
    created = (await client.create("a:b:c")).body
    browser = site.client(created["publicAccessToken"])
    assert (await browser.append("a:b:c", "x")).status == 200
    assert (await browser.append(created["id"], "x")).status == 200
    assert (await browser.call("GET", "/api/v1/sessions/other")).status == 403


async def test_a_runs_error_is_told_to_keys_only(client: Client, site: Site) -> None:
    created = (await client.create("chat-1")).body
    by_run = site.client(site.sign([f"read:runs:{created['runId']}"]))
    assert (await by_run.call("GET", f"/api/v1/runs/{created['runId']}")).status == 200
    assert (await by_run.call("GET", "/api/v1/runs/run_other")).status == 403


def forged(site: Site) -> dict[str, str]:
    """Tokens that must not work, each for one reason."""
    good = jwt.decode(session_token(site, "chat-1"), options={"verify_signature": False})
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    body = base64.urlsafe_b64encode(json.dumps(good).encode()).decode().rstrip("=")
    deep = base64.urlsafe_b64encode(b'{"a":' + b"[" * 4000).decode().rstrip("=")
    return {
        "expired": session_token(site, "chat-1", seconds=-1),
        "another environment's key": session_token(site, "chat-1", key=OTHER_KEY),
        "another environment": session_token(site, "chat-1", sub=OTHER_ENVIRONMENT),
        "no environment": session_token(site, "chat-1", sub="env_nope"),
        "environment with NUL": session_token(site, "chat-1", sub="env\x00"),
        "number as environment": session_token(site, "chat-1", sub=5),
        "not public": session_token(site, "chat-1", pub=False),
        "expiry as text": session_token(site, "chat-1", exp="2999"),
        "no expiry": session_token(site, "chat-1", exp=None),
        "not yet": session_token(site, "chat-1", nbf=4_000_000_000),
        "unsigned": f"{unsigned}.{body}.",
        "HS384": jwt.encode(good, ROOT_KEY.ljust(48), algorithm="HS384"),
        "HS512 with the right key": jwt.api_jws.PyJWS(["HS512"]).encode(
            json.dumps(good).encode(), ROOT_KEY.encode().ljust(64, b"\0"), algorithm="HS512"
        ),
        "wrong issuer": jwt.encode({**good, "iss": "https://evil"}, ROOT_KEY + "x", algorithm="HS256"),
        "cut": session_token(site, "chat-1")[:-4],
        "garbage": "a.b.c",
        "deep": f"{unsigned}.{deep}.x",
    }


async def test_a_forged_or_spent_token_is_401_and_stores_nothing(client: Client, site: Site) -> None:
    await client.create("chat-1")
    for reason, token in forged(site).items():
        answer = await site.client(token).append("chat-1", "x")
        assert (answer.status, answer.body["code"]) == (401, "unauthenticated"), reason
        assert answer.body["ok"] is False
    assert await client.records("chat-1", "in") == []


async def test_a_one_time_token_does_one_thing(client: Client, site: Site) -> None:
    await client.create("chat-1")
    once = site.client(session_token(site, "chat-1", otu=True))
    assert (await once.append("other", "x")).status == 403, "a refused try does not count"
    assert (await once.append("chat-1", "x")).status == 200
    assert (await once.append("chat-1", "y")).status == 401
    assert len(await client.records("chat-1", "in")) == 1


async def test_an_additional_key_has_its_scopes_and_counts_as_secret(client: Client, site: Site) -> None:
    key = "tr_dev_sk_" + "k" * 24
    await site.sessions.environments.add_key(ENVIRONMENT, key, ["write:sessions:chat-1", "read:sessions"])
    await client.create("chat-1")
    narrow = site.client(key)
    assert (await narrow.append("chat-1", "x", io="out")).status == 200
    assert (await narrow.append("other", "x", io="out")).status == 403
    assert (await narrow.call("POST", "/api/v1/auth/jwt/claims")).status == 403
    minted = await narrow.call("POST", "/api/v1/auth/public-tokens", {"scopes": ["write:sessions:chat-1"]})
    assert minted.status == 200
    assert (await site.client(minted.body["token"]).append("chat-1", "x")).status == 200
    for scopes in (["write:sessions"], ["admin"], ["read:sessions:x", "write:tasks"]):
        assert (await narrow.call("POST", "/api/v1/auth/public-tokens", {"scopes": scopes})).status == 403


async def test_claims_are_what_a_self_signed_token_needs(client: Client, site: Site) -> None:
    answer = await client.call("POST", "/api/v1/auth/jwt/claims")
    assert answer.body == {"sub": ENVIRONMENT, "pub": True}


@pytest.mark.parametrize(
    ("expiration", "status"),
    [("1h", 200), ("90s", 200), (4_000_000_000_000, 400), (1, 400), ("2020-01-01", 400), ("soon", 400), ("52w", 400)],
)
async def test_a_minted_token_lives_only_so_long(client: Client, expiration: Any, status: int) -> None:
    body = {"scopes": ["read:sessions"], "expirationTime": expiration}
    answer = await client.call("POST", "/api/v1/auth/public-tokens", body)
    assert answer.status == status
    assert status == 200 or answer.body["field"] == "expirationTime"


async def test_a_minted_token_may_be_for_one_use(client: Client, site: Site) -> None:
    await client.create("chat-1")
    body = {"scopes": ["write:sessions:chat-1"], "oneTimeUse": True, "realtime": {"x": 1}}
    token = (await client.call("POST", "/api/v1/auth/public-tokens", body)).body["token"]
    assert [(await site.client(token).append("chat-1", "x")).status for _ in range(2)] == [200, 401]


async def test_a_rotated_key_and_its_tokens_work_until_the_grace_is_over(client: Client, site: Site) -> None:
    await client.create("chat-1")
    token = session_token(site, "chat-1")
    new = "tr_dev_" + "n" * 24
    assert (await site.client(token).append("chat-1", "x")).status == 200
    await site.sessions.environments.rotate_root_key(ENVIRONMENT, new, grace=timedelta(hours=1))
    for credential in (token, ROOT_KEY, new):
        assert (await site.client(credential).append("chat-1", "x")).status == 200
    fresh = (await site.client(new).create("chat-1")).body["publicAccessToken"]
    assert (await site.client(fresh).append("chat-1", "x")).status == 200
