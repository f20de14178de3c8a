"""Limits of requests, as clients of a real server meet them."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest
from s2_sdk import S2ServerError

from harness.attempts import begin
from harness.backends import SHARED
from harness.client import Answer
from harness.direct import call, own_credentials, write_batches
from harness.http2 import connect
from harness.in_process import OTHER_KEY, ROOT_KEY, open_site, session_token
from harness.limits import READ, Opened, never_more, reads, refused
from sessions_adapters.profiles import EMBEDDED
from sessions_core.domain.access import run_scopes
from sessions_core.domain.rate import Rate
from sessions_server.config import Config

ORIGIN = "https://app.example"
PATIENCE = 30


def said(answer: Answer, name: str) -> int:
    return int(answer.headers[name])


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
    async with opened(environment_rate=never_more(6), token_rate=never_more(100)) as site:
        run = (await site.client().create("chat-1")).body["runId"]
        engine = site.client(site.sign(run_scopes(run, "chat-1")))
        attempt = await begin(engine, run)
        await reads(site.client(), 8)
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
