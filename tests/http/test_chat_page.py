"""The chat page's routes: who may have them, and what their tokens are good for."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.in_process import OTHER_KEY, ROOT_KEY, RawAnswer, Site, open_site
from harness.limits import never_more, reads
from sessions_adapters.profiles import MEMORY
from sessions_core.chat import Agents, Run
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.ids import EnvironmentId
from sessions_server.config import Config
from sessions_server.table import PAGE_ROUTES

OURS = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
GETS = ["/", "/page/main.js", "/page/agents"]
POSTS: list[tuple[str, dict[str, str]]] = [("/page/sessions", {"task": "idler"}), ("/page/tokens", {"session": "x"})]
agents = Agents()


@agents.task("idler")
async def idler(run: Run) -> None:
    """Do ``nothing``, politely.

    And say no more about it.
    """
    async for _ in run.turns():
        pass


@pytest.fixture
async def site(profile: str, tmp_path: Path) -> AsyncGenerator[Site]:
    async with open_site(profile, tmp_path, agents=agents) as running:
        yield running


async def ask(site: Site, method: str, path: str, body: Any = None, **headers: str | None) -> RawAnswer:
    """Make a request as the page does; a header that is None is left out."""
    sent: dict[str, str | None] = {"Host": f"127.0.0.1:{site.port}", "Connection": "close"}
    if method == "POST":
        sent |= OURS
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    payload = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", *lines_of(sent), f"Content-Length: {len(payload)}"]
    return await site.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)


def lines_of(headers: Mapping[str, str | None]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items() if value is not None]


async def make(site: Site) -> dict[str, str]:
    answer = await ask(site, "POST", "/page/sessions", {"task": "idler"})
    assert answer.status == 201, answer.body
    return dict(answer.json)


# --- The files ---


async def test_the_page_and_all_that_it_loads_are_sent_under_a_strict_policy(site: Site) -> None:
    for path in ["/", *(f"/page/{name}" for name in site.server.context.page.files)]:
        answer = await ask(site, "GET", path)
        assert answer.status == 200
        assert answer.body
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


async def test_a_file_that_has_not_changed_is_not_sent_again(site: Site) -> None:
    first = await ask(site, "GET", "/page/main.js")
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    again = await ask(site, "GET", "/page/main.js", If_None_Match=f'"other", {first.headers["etag"]}')
    assert (again.status, again.body) == (304, b"")
    head = await ask(site, "HEAD", "/page/main.js")
    assert (head.status, head.body, head.headers["etag"]) == (200, b"", first.headers["etag"])


@pytest.mark.parametrize(
    "path",
    [
        "/page/nothing.js",
        "/page/..%2Fapp.py",
        "/page/%2e%2e%2fconfig.py",
        "/page/../app.py",
        "/page/",
        "/page",
        "/index.html",
    ],
)
async def test_what_is_no_file_of_the_page_does_not_exist(site: Site, path: str) -> None:
    answer = await ask(site, "GET", path)
    assert answer.status in (301, 404) if path == "/page/" else answer.status == 404


async def test_the_page_takes_only_its_own_methods(site: Site) -> None:
    answer = await ask(site, "DELETE", "/page/sessions")
    assert (answer.status, answer.headers["allow"]) == (405, "OPTIONS, POST")
    preflight = await ask(site, "OPTIONS", "/page/sessions", Origin="https://app.test")
    assert preflight.status == 204
    assert not [name for name in preflight.headers if name.startswith("access-control")]


async def test_the_documents_do_not_list_the_pages_routes(site: Site) -> None:
    document = (await site.client().call("GET", "/openapi.json")).body
    assert not {route.path for route in PAGE_ROUTES} & set(document["paths"])


# --- Who may have it ---


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "evil.test:8787",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "127.0.0.2",
        "[::2]",
        "127.0.0.1:\u0663",
        "",
    ],
)
@pytest.mark.parametrize("path", GETS)
async def test_the_page_is_unknown_under_another_name(site: Site, host: str, path: str) -> None:
    answer = await ask(site, "GET", path, Host=host)
    assert (answer.status, answer.json["code"]) == (404, "not_found")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:8787"])
async def test_every_name_of_this_machine_will_do(site: Site, host: str) -> None:
    assert (await ask(site, "GET", "/", Host=host)).status == 200


@pytest.mark.parametrize(("path", "body"), POSTS)
async def test_nothing_is_created_under_another_name(site: Site, path: str, body: dict[str, str]) -> None:
    answer = await ask(site, "POST", path, body, Host="evil.test")
    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert await site.count_sessions() == 0


@pytest.mark.parametrize(
    "header", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via"]
)
async def test_whoever_comes_through_a_proxy_is_not_at_this_machine(site: Site, header: str) -> None:
    assert (await ask(site, "GET", "/", **{header: "somebody"})).status == 404


async def test_a_proxy_that_adds_no_header_is_told_by_its_old_http(site: Site) -> None:
    lines = f"GET / HTTP/1.0\r\nHost: 127.0.0.1:{site.port}\r\nConnection: close\r\n\r\n"
    assert (await site.raw(lines.encode())).status == 404


async def test_two_names_are_none(site: Site) -> None:
    lines = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\nConnection: close\r\n\r\n"
    assert (await site.raw(lines)).status in (400, 404)


async def test_a_server_that_others_can_reach_has_no_page(profile: str, tmp_path: Path) -> None:
    async with open_site(profile, tmp_path, agents=agents) as site:
        site.server.context.page.listens_on(["127.0.0.1", "192.0.2.1"])
        assert (await ask(site, "GET", "/")).status == 404
        assert (await ask(site, "POST", "/page/sessions", {"task": "idler"})).status == 404


async def test_a_demo_shows_the_page_to_everybody_but_not_to_their_other_pages(profile: str, tmp_path: Path) -> None:
    async with open_site(profile, tmp_path, Config(demo=True), agents=agents) as site:
        site.server.context.page.listens_on(["0.0.0.0"])
        assert (await ask(site, "GET", "/", Host="demo.test")).status == 200
        assert (await ask(site, "POST", "/page/sessions", {"task": "idler"}, Host="demo.test")).status == 201
        refused = await ask(site, "POST", "/page/sessions", {"task": "idler"}, Sec_Fetch_Site="cross-site")
        assert refused.status == 403


@pytest.mark.parametrize(("path", "body"), POSTS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Site": "cross-site", "Origin": "http://localhost"},
        {"Sec_Fetch_Site": None},
        {"Sec_Fetch_Site": None, "Origin": "https://evil.test"},
        {"Sec_Fetch_Site": None, "Origin": "null"},
        {"Sec_Fetch_Site": None, "Origin": "http://127.0.0.1:1"},
    ],
    ids=str,
)
async def test_another_page_may_change_nothing(
    site: Site, path: str, body: dict[str, str], headers: dict[str, str | None]
) -> None:
    answer = await ask(site, "POST", path, body, **headers)
    assert (answer.status, answer.json["code"]) == (403, "unauthorized")
    assert await site.count_sessions() == 0


async def test_an_old_browser_is_told_by_its_origin(site: Site) -> None:
    origin = f"http://127.0.0.1:{site.port}"
    answer = await ask(site, "POST", "/page/sessions", {"task": "idler"}, Sec_Fetch_Site=None, Origin=origin)
    assert answer.status == 201
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_what_a_form_could_send_is_refused(site: Site, kind: str | None) -> None:
    answer = await ask(site, "POST", "/page/sessions", {"task": "idler"}, Content_Type=kind)
    assert (answer.status, answer.json["field"]) == (400, "Content-Type")


# --- What it gives ---


async def test_the_agents_of_this_process_are_listed(site: Site) -> None:
    answer = await ask(site, "GET", "/page/agents")
    assert answer.json == {"agents": [{"task": "idler", "summary": "Do nothing, politely."}]}


async def test_a_token_is_good_for_its_session_alone(site: Site) -> None:
    mine, other = await make(site), await make(site)
    assert mine["externalId"] != other["externalId"]
    guest = site.client(mine["token"])
    assert (await guest.call("GET", f"/api/v1/sessions/{mine['externalId']}")).status == 200
    assert (await guest.call("GET", f"/api/v1/sessions/{mine['id']}/runs")).status == 200
    assert (await guest.say(mine["externalId"], "hello")).status == 200
    assert (await guest.append(mine["externalId"], "x", io="out")).status == 403
    for path in (f"/api/v1/sessions/{other['externalId']}", "/api/v1/sessions", "/api/v1/sessions/anything"):
        assert (await guest.call("GET", path)).status == 403
    assert (await guest.say(other["externalId"], "hello")).status == 403
    assert (await guest.create("mine", task="idler")).status == 403
    assert (await guest.call("POST", f"/api/v1/sessions/{mine['externalId']}/close")).status == 200


async def test_whoever_knows_the_session_gets_in_again(site: Site) -> None:
    mine = await make(site)
    answer = await ask(site, "POST", "/page/tokens", {"session": mine["externalId"]})
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    assert (await site.client(answer.json["token"]).say(mine["externalId"], "hello")).status == 200


async def test_sessions_that_the_page_has_not_made_have_no_entrance(site: Site) -> None:
    created = (await site.client().create("hello", task="idler")).body
    for name in ("hello", created["id"], "page_", "page_" + "x" * 32, ""):
        answer = await ask(site, "POST", "/page/tokens", {"session": name})
        assert (answer.status, answer.json["code"]) == (404, "session_not_found")


async def test_the_page_works_in_the_first_development_environment_only(site: Site) -> None:
    mine = await make(site)
    path = f"/api/v1/sessions/{mine['externalId']}"
    assert (await site.client(ROOT_KEY).call("GET", path)).status == 200
    assert (await site.client(OTHER_KEY).call("GET", path)).status == 404


async def test_without_a_development_environment_the_page_says_what_is_missing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def production(_: Any) -> list[Environment]:
        return [Environment(id=EnvironmentId("env_p"), type=EnvironmentType.PRODUCTION)]

    monkeypatch.setattr(type(site.sessions.environments), "list_all", production)
    answer = await ask(site, "POST", "/page/sessions", {"task": "idler"})
    assert (answer.status, answer.json["code"]) == (409, "no_development_environment")
    assert "sessions env create" in answer.json["error"]


async def test_only_agents_of_this_server_can_be_asked_for(site: Site) -> None:
    answer = await ask(site, "POST", "/page/sessions", {"task": "nobody"})
    assert (answer.status, answer.json["field"]) == (400, "task")
    assert await site.count_sessions() == 0


async def test_all_who_have_the_page_count_as_one_token(tmp_path: Path) -> None:
    async with open_site(MEMORY, tmp_path, Config(token_rate=never_more(2)), agents) as site:
        mine = await make(site)
        assert (await ask(site, "POST", "/page/tokens", {"session": mine["externalId"]})).status == 200
        refused = await ask(site, "POST", "/page/sessions", {"task": "idler"})
        assert (refused.status, refused.json["code"], refused.json["limit"]) == (429, "rate_limited", 2)
        assert await reads(site.client(), 3) == [404] * 3, (
            "others of the environment have what is left of its own limit"
        )


async def test_what_the_page_asks_for_counts_for_its_environment(tmp_path: Path) -> None:
    async with open_site(MEMORY, tmp_path, Config(environment_rate=never_more(3), token_rate=None), agents) as site:
        elsewhere = await ask(site, "POST", "/page/sessions", {"task": "idler"}, Sec_Fetch_Site="cross-site")
        assert elsewhere.status == 403, "which takes nothing"
        mine = await make(site)
        again = await ask(site, "POST", "/page/tokens", {"session": mine["externalId"]})
        assert (again.status, again.headers["x-ratelimit-remaining"]) == (200, "1")
        assert await reads(site.client(), 1) == [404]
        for path, body in (("/page/sessions", {"task": "idler"}), ("/page/tokens", {"session": mine["externalId"]})):
            answer = await ask(site, "POST", path, body)
            assert (answer.status, answer.json["code"]) == (429, "rate_limited")
            assert int(answer.headers["retry-after"]) > 100
            assert "access-control-allow-origin" not in answer.headers
        assert await reads(site.client(OTHER_KEY), 1) == [404]
        for path in GETS:
            assert (await ask(site, "GET", path)).status == 200
