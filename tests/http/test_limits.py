"""Limits of requests and streams, as clients of a real server meet them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from s2_sdk import AppendInput, Record, S2ServerError, SeqNum

from harness.attempts import begin
from harness.backends import SHARED
from harness.client import Answer, Client
from harness.direct import call, open_stream, own_credentials
from harness.http2 import connect
from harness.in_process import (
    ENVIRONMENT,
    OTHER_KEY,
    ROOT_KEY,
    Site,
    open_site,
    session_token,
)
from sessions_adapters.profiles import EMBEDDED, MEMORY
from sessions_core.domain.access import run_scopes
from sessions_core.domain.rate import Rate
from sessions_server import streams
from sessions_server.config import Config

ORIGIN = "https://app.example"
PATIENCE = 30
READ = "/api/v1/sessions/chat-1"
NARROW_KEY = "tr_dev_sk_" + "s" * 24
Opened = Callable[..., AbstractAsyncContextManager[Site]]


def never_more(burst: int) -> Rate:
    """Return a rate that gives so many, and no more during a test."""
    return Rate(0.001, burst)


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Opens a server with some settings and without all other limits."""

    def open_with(**settings: Any) -> AbstractAsyncContextManager[Site]:
        off: dict[str, Any] = {"environment_rate": None, "token_rate": None, "guess_rate": None}
        return open_site(MEMORY, tmp_path, Config(**{**off, **settings}))

    return open_with


async def reads(client: Client, times: int) -> list[int]:
    """Read a session so often; return the statuses."""
    return [(await client.call("GET", READ)).status for _ in range(times)]


async def refused(site: Site, limit: str) -> float:
    """Return how often /metrics says that this limit refused somebody."""
    text = (await site.client().call("GET", "/metrics")).body
    lines = [
        line for line in text.splitlines() if line.startswith(f'sessions_requests_refused_total{{limit="{limit}"}}')
    ]
    return float(lines[0].split()[-1]) if lines else 0.0


def said(answer: Answer, name: str) -> int:
    return int(answer.headers[name])


# --- requests ---


async def test_what_a_refusal_says(opened: Opened) -> None:
    async with opened(environment_rate=Rate(0.5, 2)) as site:
        client = site.client()
        assert (await client.create("chat-1")).status == 201
        await client.call("GET", READ)
        before = time.time()
        answer = await client.call("GET", READ, Origin=ORIGIN)
        after = time.time()
        assert answer.status == 429
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert (said(answer, "x-ratelimit-limit"), said(answer, "x-ratelimit-remaining")) == (2, 0)
        reset, seconds = said(answer, "x-ratelimit-reset"), said(answer, "Retry-After")
        assert before * 1000 < reset <= (after + 2) * 1000 + 1
        assert seconds in (1, 2)
        assert answer.body == {
            "error": answer.body["detail"],
            "code": "rate_limited",
            "title": "Rate Limit Exceeded",
            "status": 429,
            "type": "https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/429",
            "detail": answer.body["error"],
            "limit": 2,
            "remaining": 0,
            "reset": reset,
            "secondsUntilReset": seconds,
        }
        assert "x-should-retry" not in answer.headers, "the official clients would no longer wait until the reset"
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        exposed = answer.headers["Access-Control-Expose-Headers"].lower()
        assert all(name in exposed for name in ("retry-after", "x-ratelimit-reset"))
        assert "X-Request-Id" in answer.headers
        assert await refused(site, "environment") == 1


async def test_an_append_that_is_refused_stores_nothing_and_says_ok_false(opened: Opened) -> None:
    async with opened(token_rate=never_more(1)) as site:
        await site.client().create("chat-1")
        browser = site.client(session_token(site, "chat-1"))
        answers = [await browser.say("chat-1", "hello", f"part-{number}") for number in range(3)]
        assert [answer.status for answer in answers] == [200, 429, 429]
        assert answers[1].body["ok"] is False
        assert len(await site.client().records("chat-1", "in")) == 1


async def test_answers_tell_what_is_left(opened: Opened) -> None:
    async with opened(environment_rate=never_more(5), token_rate=never_more(4)) as site:
        await site.client().create("chat-1")
        browser = site.client(session_token(site, "chat-1"))
        answers = [await browser.call("GET", READ) for _ in range(2)]
        assert [said(answer, "x-ratelimit-remaining") for answer in answers] == [3, 2]
        assert {said(answer, "x-ratelimit-limit") for answer in answers} == {4}
        absent = await site.client().call("GET", "/api/v1/sessions/absent")
        assert (absent.status, said(absent, "x-ratelimit-remaining")) == (404, 1)


@pytest.mark.parametrize("profile", [EMBEDDED, SHARED[0]])
async def test_other_profiles_count_as_well(profile: str, tmp_path: Path) -> None:
    async with open_site(profile, tmp_path, Config(environment_rate=never_more(3))) as site:
        assert await reads(site.client(), 5) == [404] * 3 + [429] * 2


@pytest.mark.parametrize("header", ["Retry-After", "x-ratelimit-reset"])
async def test_who_waits_as_told_gets_through(opened: Opened, header: str) -> None:
    async with opened(environment_rate=Rate(1, 1)) as site:
        client = site.client()
        for _ in range(2):
            while (answer := await client.call("GET", READ)).status != 429:
                pass
            wait = said(answer, header)
            await asyncio.sleep(wait if header == "Retry-After" else wait / 1000 - time.time())
            assert (await client.call("GET", READ)).status == 404


async def test_a_flood_with_one_token_touches_nobody_else(opened: Opened) -> None:
    async with opened(environment_rate=never_more(30), token_rate=never_more(10)) as site:
        await site.client().create("chat-1")
        flooding, other = (site.client(session_token(site, "chat-1", jti=name)) for name in "ab")
        statuses = await asyncio.gather(*(reads(flooding, 20) for _ in range(10)))
        assert sum(status == 200 for each in statuses for status in each) == 10
        assert await reads(other, 5) == [200] * 5
        assert await reads(site.client(), 5) == [200] * 5
        assert await reads(site.client(OTHER_KEY), 5) == [404] * 5
        assert (await refused(site, "token"), await refused(site, "environment")) == (190, 0)
        text = (await site.client().call("GET", "/metrics")).body
        assert re.findall(r"^sessions_requests_refused_total\{(.*)\}", text, re.MULTILINE) == ['limit="token"']


async def test_a_flood_in_one_environment_does_not_touch_another(opened: Opened) -> None:
    async with opened(environment_rate=never_more(10)) as site:
        await asyncio.gather(*(reads(site.client(), 20) for _ in range(5)))
        assert await reads(site.client(), 1) == [429]
        assert await reads(site.client(OTHER_KEY), 9) == [404] * 9


async def test_a_token_is_the_same_however_it_is_spelled(opened: Opened) -> None:
    async with opened(token_rate=never_more(2)) as site:
        await site.client().create("chat-1")
        token = session_token(site, "chat-1")
        answers = [await site.client(each).call("GET", READ) for each in (token, token + "=", " " + token)]
        assert [answer.status for answer in answers] == [200, 200, 429]


async def test_what_is_open_to_everybody_has_no_limit(opened: Opened) -> None:
    async with opened(environment_rate=never_more(1), token_rate=never_more(1)) as site:
        client = site.client()
        assert await reads(client, 3) == [404, 429, 429]
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/"):
            answers = [await client.call("GET", path) for _ in range(3)]
            assert {answer.status for answer in answers} == {200}
            assert not any("x-ratelimit-limit" in answer.headers for answer in answers)
        assert (await client.call("OPTIONS", READ, Origin=ORIGIN)).status == 200


async def test_a_run_stays_alive_while_its_environment_is_over_its_limit(opened: Opened) -> None:
    async with opened(environment_rate=never_more(3), token_rate=never_more(100)) as site:
        run = (await site.client().create("chat-1")).body["runId"]
        engine = site.client(site.sign(run_scopes(run, "chat-1")))
        attempt = await begin(engine, run)
        await reads(site.client(), 5)
        assert (await attempt.write("x")).status == 429
        assert [(await attempt.call("heartbeat")).status for _ in range(5)] == [200] * 5
        assert (await attempt.complete()).status == 200


async def test_without_limits_nobody_is_refused_or_told_of_any(opened: Opened) -> None:
    async with opened(streams=0, streams_per_environment=0, streams_per_session=0, streams_per_token=0) as site:
        answers = [await site.client().call("GET", READ) for _ in range(50)]
        assert {answer.status for answer in answers} == {404}
        assert not any("x-ratelimit-limit" in answer.headers for answer in answers)


async def test_over_http_2_it_is_the_same(opened: Opened) -> None:
    async with opened(environment_rate=never_more(1), guess_rate=never_more(1)) as site, connect(site.port) as client:
        headers = [("authorization", f"Bearer {ROOT_KEY}"), ("origin", ORIGIN)]
        answers = [await client.call("GET", READ, headers=headers) for _ in range(2)]
        assert [answer.status for answer in answers] == [404, 429]
        assert answers[1].headers["access-control-allow-origin"] == ORIGIN
        assert "retry-after" in answers[1].headers
        wrong = [await client.call("GET", READ, headers=[("authorization", f"Bearer {n}")]) for n in "ab"]
        assert [answer.status for answer in wrong] == [401, 429]
        assert (await site.client("c").call("GET", READ)).status == 429, "the same address over the other version"


# --- guesses ---


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
        monkeypatch.setattr("sessions_server.auth.KEY_SECONDS", -1.0)
        assert await reads(site.client(), 3) == await reads(token, 3) == [404] * 3


async def test_a_key_that_was_revoked_becomes_a_guess(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessions_server.auth.KEY_SECONDS", -1.0)
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


# --- the data plane ---


async def test_the_data_plane_answers_in_its_own_words(opened: Opened) -> None:
    async with opened(environment_rate=never_more(3), guess_rate=never_more(1)) as site:
        await site.client().create("chat-1")
        answers = [await call(site, "GET", own_credentials(), query="/tail", origin=ORIGIN) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 429, 429]
        last = answers[-1]
        assert (last.code, last.json.keys()) == ("rate_limited", {"code", "message"})
        assert last.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert int(last.headers["Retry-After"]) > 100
        body = b'{"records": [{"body": "x"}]}'
        assert (await call(site, "POST", own_credentials(), body)).code == "rate_limited"
        wrong = [await call(site, "GET", own_credentials(token=f"wrong-{n}"), query="/tail") for n in range(2)]
        assert [answer.status for answer in wrong] == [401, 429]


async def write_batches(site: Site, count: int) -> int:
    """Write batches one after the other in one session; return how many were acknowledged."""
    acked = 0
    async with open_stream(site, own_credentials()) as stream, stream.append_session() as session:
        for number in range(count):
            await (await session.submit(AppendInput([Record(b'{"data":1,"id":"%d"}' % number)])))
            acked += 1
    return acked


async def test_an_append_session_is_slowed_down_instead_of_broken_off(opened: Opened) -> None:
    async with asyncio.timeout(PATIENCE), opened(environment_rate=Rate(20, 5)) as site:
        await site.client().create("chat-1")
        start = time.monotonic()
        assert await write_batches(site, 12) == 12
        assert time.monotonic() - start >= (1 + 1 + 12 - 5) / 20 - 0.05


async def test_a_batch_that_would_wait_for_too_long_ends_its_session(opened: Opened) -> None:
    async with asyncio.timeout(PATIENCE), opened(environment_rate=never_more(4)) as site:
        await site.client().create("chat-1")
        with pytest.raises(S2ServerError) as ended:
            await write_batches(site, 5)
        assert (ended.value.code, ended.value.status_code) == ("rate_limited", 429)


# --- streams ---


def open_streams(site: Site) -> int:
    """Return for how many holders there are streams."""
    return len(site.server.context.limits.streams)


async def all_over(site: Site) -> None:
    async with asyncio.timeout(PATIENCE):
        while open_streams(site):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("limit", "credentials", "names"),
    [
        ("streams_per_token", ("token", "token"), ("chat-1", "chat-1")),
        ("streams_per_session", ("token", "other token"), ("chat-1", "chat-1")),
        ("streams_per_environment", ("token", "key"), ("chat-1", "chat-2")),
        ("streams", ("token", "other key"), ("chat-1", "chat-2")),
    ],
)
async def test_one_stream_too_many_is_refused_until_another_is_over(
    opened: Opened, limit: str, credentials: tuple[str, str], names: tuple[str, str]
) -> None:
    async with opened(**{limit: 2}) as site:
        await site.client().create("chat-1")
        shown = {
            "token": session_token(site, "chat-1"),
            "other token": session_token(site, "chat-1", jti="other"),
            "key": ROOT_KEY,
            "other key": OTHER_KEY,
        }
        one, other = (site.client(shown[each]) for each in credentials)
        async with one.subscribe(names[0]) as (response, _):
            assert response.status == 200
            async with one.subscribe(names[0]) as (second, _):
                assert second.status == 200
                path = f"/realtime/v1/sessions/{names[1]}/out"
                answer = await other.call("GET", path, Origin=ORIGIN)
                assert (answer.status, answer.body["code"]) == (429, "too_many_streams")
                assert answer.body["limit"] == 2
                assert answer.headers["Retry-After"] == "1"
                assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
            async with asyncio.timeout(PATIENCE):
                while True:
                    async with other.subscribe(names[1]) as (third, _):
                        if third.status == 200:
                            break
        await all_over(site)
        kind = {"streams": "process"}.get(limit, limit.removeprefix("streams_per_"))
        assert await refused(site, f"{kind}_streams") >= 1


Ending = Callable[[Site, Client, AsyncExitStack], Any]


async def leave(site: Site, client: Client, stack: AsyncExitStack) -> None:
    await stack.enter_async_context(client.subscribe("chat-1"))
    assert open_streams(site)
    await stack.aclose()


async def read_to_its_end(_site: Site, client: Client, stack: AsyncExitStack) -> None:
    _, events = await stack.enter_async_context(client.subscribe("chat-1", window=1))
    assert [frame async for frame in events][-1].data == "[DONE]"


async def peek(_site: Site, client: Client, stack: AsyncExitStack) -> None:
    _, events = await stack.enter_async_context(client.subscribe("chat-1", window=1, X_Peek_Settled="1"))
    assert [frame async for frame in events]


async def outlive_the_token(site: Site, _client: Client, stack: AsyncExitStack) -> None:
    short = site.client(session_token(site, "chat-1", seconds=1))
    _, events = await stack.enter_async_context(short.subscribe("chat-1"))
    assert [frame async for frame in events]


async def revoke(site: Site, _client: Client, stack: AsyncExitStack) -> None:
    store = site.sessions.environments
    key = await store.add_key(ENVIRONMENT, NARROW_KEY, ["read:sessions"])
    _, events = await stack.enter_async_context(site.client(NARROW_KEY).subscribe("chat-1"))
    assert open_streams(site)
    await store.revoke_key(ENVIRONMENT, key.id)
    assert [frame async for frame in events]


async def shut_down(site: Site, client: Client, stack: AsyncExitStack) -> None:
    _, events = await stack.enter_async_context(client.subscribe("chat-1"))
    assert open_streams(site)
    await site.server.close()
    assert [frame async for frame in events]


async def reset(site: Site, _: Client, stack: AsyncExitStack) -> None:
    connection = await stack.enter_async_context(connect(site.port))
    stream = connection.begin(
        "GET", "/realtime/v1/sessions/chat-1/out", [("authorization", f"Bearer {ROOT_KEY}")], end=True
    )
    assert (await stream.head())[0] == 200
    assert open_streams(site)
    stream.reset()


async def poll(site: Site, client: Client, _: AsyncExitStack) -> None:
    run = (await client.call("GET", "/api/v1/sessions/chat-1/runs")).body["data"][0]["runId"]
    body = {"session": "chat-1", "io": "in"}
    wait = (await client.call("POST", f"/api/v1/runs/{run}/session-streams/wait", body)).body["waitpointId"]
    path = f"/api/v1/waitpoints/tokens/{wait}"
    assert (await client.call("GET", path, Timeout_Seconds="1")).status == 200
    asking = asyncio.create_task(client.call("GET", path, Timeout_Seconds="600"))
    async with asyncio.timeout(PATIENCE):
        while not open_streams(site):
            await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.wait([asking])


async def read_directly(site: Site, client: Client, _: AsyncExitStack) -> None:
    await client.append("chat-1", "x", io="out")
    async with asyncio.timeout(PATIENCE), open_stream(site, own_credentials()) as stream:
        async for _batch in stream.read_session(start=SeqNum(0)):
            assert open_streams(site)
            break


async def write_directly(site: Site, _: Client, __: AsyncExitStack) -> None:
    assert await write_batches(site, 3) == 3


@pytest.mark.parametrize(
    "end",
    [
        leave,
        read_to_its_end,
        peek,
        outlive_the_token,
        revoke,
        shut_down,
        reset,
        poll,
        read_directly,
        write_directly,
    ],
)
async def test_however_a_stream_ends_it_counts_no_more(
    opened: Opened, end: Ending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "RECHECK_SECONDS", 0.05)
    monkeypatch.setattr("sessions_server.auth.KEY_SECONDS", 0.0)
    async with opened() as site:
        await site.client().create("chat-1")
        async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
            await end(site, site.client(), stack)
            await all_over(site)


async def test_waits_count_as_streams(opened: Opened) -> None:
    async with opened(streams=1) as site:
        client = site.client()
        run = (await client.create("chat-1")).body["runId"]
        body = {"session": "chat-1", "io": "in"}
        wait = (await client.call("POST", f"/api/v1/runs/{run}/session-streams/wait", body)).body["waitpointId"]
        async with client.subscribe("chat-1"):
            path = f"/api/v1/waitpoints/tokens/{wait}"
            answer = await client.call("GET", path, Timeout_Seconds="5")
            assert (answer.status, answer.body["code"]) == (429, "too_many_streams")
            assert (await client.call("GET", path)).status == 200, "one that does not wait is none"


async def test_long_answers_of_the_data_plane_count_as_streams(opened: Opened) -> None:
    async with opened(streams_per_session=1) as site:
        client = site.client()
        await client.create("chat-1")
        async with client.subscribe("chat-1"):
            answer = await call(site, "GET", own_credentials(), accept="text/event-stream")
            assert (answer.status, answer.code) == (429, "rate_limited")
            with pytest.raises(S2ServerError) as refusal:
                await write_batches(site, 1)
            assert refusal.value.status_code == 429
