"""No holder of a token gets more than the token's limit by asking for other tokens, and what runs live on has a limit of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harness.attempts import Attempt, begin
from harness.client import Answer, Client, is_control
from harness.direct import call, credentials, own_credentials
from harness.http2 import connect
from harness.in_process import ENVIRONMENT, ROOT_KEY, Site, open_site, session_token, until_the_next_second
from harness.limits import READ, Opened, never_more, reads, refused
from sessions_adapters.profiles import MEMORY
from sessions_core.domain.access import session_scopes
from sessions_core.domain.channel import PUBLIC_ACCESS_TOKEN
from sessions_server.bundled import agents
from sessions_server.config import Config

NARROW_KEY = "tr_dev_sk_" + "n" * 24
RECORD = b'{"records": [{"body": "{\\"data\\":1}"}]}'
FROM_THE_PAGE = {"Sec_Fetch_Site": "same-origin"}
PATIENCE = 30


def left(answer: Answer) -> tuple[int, int]:
    """Return what an answer says of its limit, and of what is left of it."""
    return int(answer.headers["x-ratelimit-limit"]), int(answer.headers["x-ratelimit-remaining"])


async def read(site: Site, token: str) -> tuple[int, int]:
    """Read the session with *token*; return what the answer says of its limit."""
    return left(await site.client(token).call("GET", READ))


async def created_again(site: Site, creator: Client, name: str = "chat-1") -> list[str]:
    """Create a session and get it once more a second later; return the tokens of both answers."""
    first = (await creator.create(name)).body["publicAccessToken"]
    await until_the_next_second(site)
    second = (await creator.create(name)).body["publicAccessToken"]
    assert first != second
    return [first, second]


async def minted(site: Site) -> str:
    body = {"scopes": list(session_scopes("chat-1"))}
    token: str = (await site.client().call("POST", "/api/v1/auth/public-tokens", body)).body["token"]
    return token


# --- tokens ---


async def test_a_session_token_gets_no_more_by_asking_for_direct_tokens(opened: Opened) -> None:
    async with opened(token_rate=never_more(6)) as site:
        browser = site.client((await site.client().create("chat-1")).body["publicAccessToken"])
        given = []
        for _ in range(2):
            given.append(await credentials(site, way="in", token=browser.key))
            assert (await call(site, "POST", given[-1], RECORD)).status == 200
            await until_the_next_second(site)
        assert given[0].token != given[1].token
        assert await reads(browser, 3) == [200, 200, 429]
        assert [(await call(site, "POST", each, RECORD)).status for each in given] == [429, 429]
        assert (await browser.call("PUT", "/realtime/v1/sessions/chat-1/in")).status == 429


async def test_nor_by_asking_for_those_of_sessions_that_it_invents(opened: Opened) -> None:
    async with opened(token_rate=never_more(10)) as site:
        inventor = site.sign(["write:sessions"])
        answers = [
            await call(site, "POST", await credentials(site, f"invented-{n}", "in", inventor), RECORD) for n in range(3)
        ]
        assert [answer.status for answer in answers] == [404] * 3
        assert [int(answer.headers["x-ratelimit-remaining"]) for answer in answers] == [8, 6, 4]


async def test_direct_tokens_that_a_key_asks_for_are_counted_by_their_channel(opened: Opened) -> None:
    async with opened(token_rate=never_more(10)) as site:
        for name in ("chat-1", "chat-2"):
            await site.client().create(name)
        first = await credentials(site)
        await until_the_next_second(site)
        given = [first, await credentials(site), await credentials(site, way="in"), await credentials(site, "chat-2")]
        assert given[0].token != given[1].token
        answers = [await call(site, "POST", each, RECORD) for each in given]
        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["9", "8", "9", "9"]


async def test_the_tokens_of_a_session_are_counted_together(opened: Opened) -> None:
    async with opened(token_rate=never_more(10)) as site:
        first, second = await created_again(site, site.client())
        other = (await site.client().create("chat-2")).body["publicAccessToken"]
        assert [await read(site, each) for each in (first, second, other)] == [(10, 9), (10, 8), (10, 9)]


async def test_the_fresh_token_of_a_turn_goes_on_where_the_one_before_was(tmp_path: Path) -> None:
    config = Config(environment_rate=None, guess_rate=None, token_rate=never_more(10))
    async with open_site(MEMORY, tmp_path, config, agents=agents) as site:
        server = site.client()
        token = (await server.create("chat-1")).body["publicAccessToken"]
        await until_the_next_second(site)
        assert left(await site.client(token).say("chat-1", "hello")) == (10, 9)
        async with asyncio.timeout(PATIENCE):
            await server.turn("chat-1")
        record = next(each for each in await server.records("chat-1", "out") if is_control(each, "turn-complete"))
        fresh = dict(record["headers"])[PUBLIC_ACCESS_TOKEN]
        assert fresh != token
        assert await read(site, fresh) == (10, 8)
        assert await read(site, token) == (10, 7)


async def test_what_a_token_creates_is_counted_as_that_token(opened: Opened) -> None:
    async with opened(token_rate=never_more(20)) as site:
        creator = site.client(site.sign(["write:sessions", "read:sessions"]))
        tokens = await created_again(site, creator) + await created_again(site, creator, "chat-2")
        answers = [await site.client(token).call("GET", READ) for token in tokens]
        assert [answer.status for answer in answers] == [200, 200, 403, 403]
        assert [left(answer) for answer in answers] == [(20, 15), (20, 14), (20, 13), (20, 12)]


async def test_the_pages_tokens_of_a_session_are_counted_together(tmp_path: Path) -> None:
    config = Config(environment_rate=None, guess_rate=None, token_rate=never_more(10))
    async with open_site(MEMORY, tmp_path, config, agents=agents) as site:
        page = site.client()
        made = (await page.call("POST", "/page/sessions", {"task": "echo"}, **FROM_THE_PAGE)).body
        await until_the_next_second(site)
        again = (await page.call("POST", "/page/tokens", {"session": made["externalId"]}, **FROM_THE_PAGE)).body
        assert made["token"] != again["token"]
        assert [await read(site, each["token"]) for each in (made, again)] == [(10, 9), (10, 8)]


async def test_what_a_key_mints_is_counted_each_for_itself(opened: Opened) -> None:
    async with opened(token_rate=never_more(10)) as site:
        first = await minted(site)
        await until_the_next_second(site)
        tokens = [first, await minted(site), session_token(site, "chat-1", jti="own")]
        assert [await read(site, token) for token in tokens] == [(10, 9)] * 3


async def test_streams_with_tokens_of_one_session_are_counted_together(opened: Opened) -> None:
    async with opened(streams_per_token=1) as site:
        first, second = await created_again(site, site.client())
        async with site.client(first).subscribe("chat-1") as (response, _):
            assert response.status == 200
            answer = await site.client(second).call("GET", "/realtime/v1/sessions/chat-1/out")
            assert (answer.status, answer.body["code"]) == (429, "too_many_streams")
            async with site.client(await minted(site)).subscribe("chat-1") as (own, _):
                assert own.status == 200


# --- what runs live on ---


async def begun(site: Site) -> tuple[Attempt, str]:
    """Begin a run with the key; return its attempt, and a token for it."""
    run = (await site.client().create("chat-1")).body["runId"]
    attempt = await begin(site.client(), run)
    return attempt, attempt.begun["token"]


async def test_heartbeats_with_a_key_have_a_limit_that_no_flood_uses_up(opened: Opened) -> None:
    async with opened(environment_rate=never_more(4)) as site:
        attempt, _ = await begun(site)
        assert await reads(site.client(), 5) == [200] * 2 + [429] * 3
        answers = [await attempt.call("heartbeat") for _ in range(6)]
        assert [answer.status for answer in answers] == [200] * 4 + [429] * 2
        assert [left(answer) for answer in answers] == [(4, 3), (4, 2), (4, 1), (4, 0), (4, 0), (4, 0)]
        assert answers[-1].body["code"] == "rate_limited"
        assert int(answers[-1].headers["Retry-After"]) > 100
        assert (await refused(site, "vital"), await refused(site, "environment")) == (2, 3)


async def test_a_flood_of_heartbeats_takes_nothing_from_its_environment(opened: Opened) -> None:
    async with opened(environment_rate=never_more(4)) as site:
        attempt, _ = await begun(site)
        for _ in range(6):
            await attempt.call("heartbeat")
        assert (await attempt.complete()).status == 429, "the end of an attempt counts among them"
        assert await reads(site.client(), 3) == [200, 200, 429]


async def test_who_may_not_carry_the_run_out_cannot_use_its_heartbeats_up(opened: Opened) -> None:
    async with opened(environment_rate=never_more(12)) as site:
        attempt, token = await begun(site)
        await site.sessions.environments.add_key(ENVIRONMENT, NARROW_KEY, ["read:sessions", "write:runs:run_other"])
        for stranger in (NARROW_KEY, session_token(site, "chat-1")):
            asking = Attempt(site.client(stranger), attempt.run, attempt.begun)
            assert (await asking.call("heartbeat")).status == 403
            assert [(await asking.complete()).status for _ in range(4)] == [403] * 4
        assert await reads(site.client(), 1) == [429], "these were the environment's own"
        running = Attempt(site.client(token), attempt.run, attempt.begun)
        assert [(await running.call("heartbeat")).status for _ in range(11)] == [200] * 11
        assert (await running.complete()).status == 200


async def test_the_fresh_token_of_a_heartbeat_goes_on_where_the_one_before_was(opened: Opened) -> None:
    async with opened(token_rate=never_more(10)) as site:
        attempt, token = await begun(site)
        await until_the_next_second(site)
        answer = await Attempt(site.client(token), attempt.run, attempt.begun).call("heartbeat")
        fresh = answer.body["token"]
        assert fresh != token
        assert left(answer) == (10, 9)
        assert [await read(site, each) for each in (fresh, token)] == [(10, 8), (10, 7)]


# --- the data plane ---


async def test_answers_of_the_data_plane_tell_what_is_left_unless_they_are_streams(opened: Opened) -> None:
    async with opened(environment_rate=never_more(20)) as site:
        await site.client().create("chat-1")
        tail, absent = own_credentials(), own_credentials("absent")
        answers = [
            await call(site, "GET", tail, query="/tail"),
            await call(site, "POST", tail, RECORD),
            await call(site, "GET", tail, query="?seq_num=0"),
            await call(site, "GET", absent, query="/tail"),
        ]
        assert [answer.status for answer in answers] == [200, 200, 200, 404]
        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["18", "17", "16", "15"]
        assert all(int(answer.headers["x-ratelimit-reset"]) for answer in answers)
        stream = await call(site, "GET", tail, query="?seq_num=0&count=1", accept="text/event-stream")
        assert stream.status == 200
        assert "x-ratelimit-limit" not in stream.headers


@pytest.mark.parametrize(("query", "status"), [("/tail", 200), ("?seq_num=x", 400)])
async def test_they_do_over_http_2(opened: Opened, query: str, status: int) -> None:
    async with opened(environment_rate=never_more(20)) as site, connect(site.port) as client:
        await site.client().create("chat-1")
        given = own_credentials()
        headers = [("authorization", f"Bearer {ROOT_KEY}"), ("s2-basin", given.basin)]
        path = f"/v1/streams/{given.stream.replace('/', '%2F')}/records{query}"
        answer = await client.call("GET", path, headers=headers)
        assert answer.status == status
        names = ("x-ratelimit-limit", "x-ratelimit-remaining")
        assert [answer.headers[name] for name in names] == ["20", "18"]
