"""The HTTP layer itself: methods, redirects, browsers, request ids, health, documents, start and stop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from harness.client import Client
from harness.in_process import ROOT_KEY, Site, open_site
from sessions_core.errors import StoreUnavailableError
from sessions_server.config import Config
from sessions_server.table import ROUTES

ORIGIN = "https://app.test"
# On one profile: what is tried here is answered before any store is asked.
on_one_profile = pytest.mark.parametrize("profile", ["memory"])
PATHS = sorted({route.path.replace("{io}", "in") for route in ROUTES})


def concrete(path: str) -> str:
    return path.format(session="chat-1", run="run_x", waitpoint="waitpoint_x")


@pytest.mark.parametrize("path", PATHS)
@on_one_profile
async def test_every_path_answers_a_preflight_without_credential(site: Site, path: str) -> None:
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, x-part-id, last-event-id",
    }
    async with site.http.options(site.address + concrete(path), headers=headers) as response:
        assert response.status == 200
        assert await response.json() == {}
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert response.headers["Access-Control-Allow-Headers"] == "authorization, x-part-id, last-event-id"
        assert response.headers["Access-Control-Allow-Methods"] == "GET,HEAD,PUT,PATCH,POST,DELETE"
        assert response.headers["Access-Control-Max-Age"] == "300"
        assert "Origin" in response.headers["Vary"]


@pytest.mark.parametrize("path", PATHS)
@on_one_profile
async def test_every_path_refuses_other_methods_before_asking_who_calls(site: Site, path: str) -> None:
    allowed = {route.method for route in ROUTES if route.path.replace("{io}", "in") == path}
    allowed |= {"HEAD"} if "GET" in allowed else set()
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} - allowed:
        async with site.http.request(method, site.address + concrete(path)) as response:
            assert response.status == 405
            assert set(response.headers["Allow"].split(", ")) == allowed | {"OPTIONS"}
            if method != "HEAD":
                assert (await response.json())["code"] == "method_not_allowed"


@pytest.mark.parametrize("target", ["/", "/api", "/api/v1/nothing", "//", "/healthz/x", "/realtime/v1/sessions/a/in/x"])
@on_one_profile
async def test_an_unknown_path_is_404(site: Site, target: str) -> None:
    answer = await site.raw_call("GET", target)
    assert (answer.status, answer.json["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/api/v1/sessions/", "/api/v1/sessions"),
        ("/api/v1/sessions/?page%5Bsize%5D=1", "/api/v1/sessions?page%5Bsize%5D=1"),
        ("/api/v1/sessions/a%2Fb/", "/api/v1/sessions/a%2Fb"),
        ("/healthz/", "/healthz"),
    ],
)
@on_one_profile
async def test_a_trailing_slash_is_led_to_the_path_without(site: Site, target: str, location: str) -> None:
    answer = await site.raw_call("GET", target, headers=[f"Origin: {ORIGIN}"])
    assert (answer.status, answer.headers["location"]) == (301, location)
    assert answer.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize("target", ["//evil.test/", "/\\evil.test/", "/%2F%2Fevil.test/"])
@on_one_profile
async def test_nobody_is_led_elsewhere(site: Site, target: str) -> None:
    assert (await site.raw_call("GET", target)).status == 404


async def test_head_is_get_without_a_body(client: Client) -> None:
    await client.create("chat-1")
    answer = await client.call("HEAD", "/api/v1/sessions/chat-1")
    assert (answer.status, answer.body) == (200, "")


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("GET", "/api/v1/sessions", ROOT_KEY, 200),
        ("GET", "/api/v1/sessions", "wrong", 401),
        ("GET", "/api/v1/sessions/nope", ROOT_KEY, 404),
        ("POST", "/api/v1/sessions", ROOT_KEY, 400),
        ("DELETE", "/api/v1/sessions", ROOT_KEY, 405),
        ("GET", "/nothing", ROOT_KEY, 404),
    ],
)
async def test_browsers_can_read_every_answer(site: Site, method: str, path: str, key: str, status: int) -> None:
    answer = await site.client(key).call(method, path, Origin=ORIGIN)
    assert answer.status == status
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert answer.headers["Vary"] == "Origin"
    assert "x-request-id" in answer.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Access-Control-Allow-Origin" not in (await site.client(key).call(method, path)).headers


async def test_every_answer_has_a_request_id_the_callers_own_if_it_sends_one(client: Client) -> None:
    ids = {(await client.call("GET", path)).headers["X-Request-Id"] for path in ("/healthz", "/healthz", "/nope")}
    assert len(ids) == 3
    answer = await client.call("GET", "/api/v1/sessions/nope", X_Request_Id="mine-1")
    assert answer.headers["X-Request-Id"] == "mine-1"


async def test_health_and_readiness_need_no_credential(site: Site) -> None:
    nobody = site.client("")
    assert (await nobody.call("GET", "/healthz")).body == {"status": "ok"}
    assert (await nobody.call("GET", "/readyz")).body == {"status": "ready"}


async def test_a_draining_server_is_alive_but_not_ready(client: Client, site: Site) -> None:
    await site.server.drain()
    answer = await client.call("GET", "/readyz")
    assert (answer.status, answer.body) == (503, {"status": "draining"})
    assert (await client.call("GET", "/healthz")).status == 200
    assert (await client.create("chat-1")).status == 201


async def test_a_server_without_its_store_is_not_ready(
    client: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_: Any) -> None:
        raise StoreUnavailableError

    monkeypatch.setattr(type(site.sessions), "check", down)
    answer = await client.call("GET", "/readyz")
    assert (answer.status, answer.body) == (503, {"status": "unavailable"})


async def test_what_we_did_not_expect_is_a_500_that_tells_nothing(
    client: Client, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("secret driver text")

    monkeypatch.setattr(type(site.sessions.sessions), "get", broken)
    answer = await client.call("GET", "/api/v1/sessions/x", X_Request_Id="mine-2")
    assert answer.status == 500
    assert answer.body == {"error": "Something went wrong", "code": "internal_error"}
    [record] = [record for record in caplog.records if record.name == "sessions.server"]
    assert record.exc_info is not None
    assert vars(record)["request_id"] == "mine-2"


async def test_metrics_count_requests_and_the_cores_events_and_name_nobody(client: Client) -> None:
    created = (await client.create("chat-1")).body
    await client.append("chat-1", "x", "p")
    await client.append("chat-1", "x", "p")
    text = (await client.call("GET", "/metrics")).body
    assert 'sessions_http_requests_total{route="/api/v1/sessions",status="201"} 1.0' in text
    assert 'sessions_http_seconds_count{route="/realtime/v1/sessions/{session}/in/append"} 2.0' in text
    assert 'sessions_records_appended_total{io="in"} 1.0' in text
    assert 'sessions_records_duplicate_total{io="in"} 1.0' in text
    assert 'sessions_events_total{event="SessionCreated"} 1.0' in text
    assert "chat-1" not in text
    assert created["id"] not in text
    assert "env_one" not in text


async def test_the_document_lists_every_route(client: Client) -> None:
    document = (await client.call("GET", "/openapi.json")).body
    listed = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert listed >= {(route.method, route.path) for route in ROUTES}


async def test_a_client_that_asks_before_sending_is_told_to_go_on(client: Client, site: Site) -> None:
    await client.create("chat-1")
    head = f"POST /realtime/v1/sessions/chat-1/in/append HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ROOT_KEY}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(head.encode() + b"Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    writer.write(b"hi")
    assert b" 200 OK" in await reader.read()
    writer.close()
    await writer.wait_closed()


async def test_requests_may_be_pipelined_on_one_connection(client: Client, site: Site) -> None:
    await client.create("chat-1")
    one = f"POST /realtime/v1/sessions/chat-1/in/append HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ROOT_KEY}\r\n"
    answer = await site.raw(
        b"".join(one.encode() + b"Content-Length: 1\r\n\r\n" + b"%d" % n for n in range(3))
        + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert answer.status == 200
    assert [record["data"] for record in await client.records("chat-1", "in")] == ["0", "1", "2"]


async def test_an_append_whose_client_leaves_is_whole_or_not_there(client: Client, site: Site, first: int) -> None:
    await client.create("chat-1")
    head = f"POST /realtime/v1/sessions/chat-1/in/append HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ROOT_KEY}\r\n"
    for _ in range(30):
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(head.encode() + b"Content-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.transport.abort()
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(head.encode() + b"Content-Length: 5\r\n\r\nhel")
    await writer.drain()
    writer.transport.abort()
    assert (await client.append("chat-1", "last")).status == 200
    records = await client.records("chat-1", "in")
    assert {record["data"] for record in records} <= {"hello", "last"}
    assert [record["seqNum"] for record in records] == list(range(first, first + len(records)))


async def test_a_stopping_server_tells_its_readers(profile: str, tmp_path: Path) -> None:
    async with open_site(profile, tmp_path, Config()) as site:
        client = site.client()
        async with client.subscribe("later") as (_, frames):
            await anext(frames)
            stopping = asyncio.create_task(site.server.close())
            assert [frame.data async for frame in frames] == ["[DONE]"]
            await stopping


async def test_the_access_log_names_the_request_but_no_credential_and_no_query(
    profile: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sessions.access")
    async with open_site(profile, tmp_path, Config(access_log=True)) as site:
        await site.client().call("GET", "/api/v1/sessions?page%5Bafter%5D=secret", X_Request_Id="mine-3")
    [line] = [vars(record) for record in caplog.records if record.name == "sessions.access"]
    assert (line["method"], line["path"], line["status"], line["request_id"]) == (
        "GET",
        "/api/v1/sessions",
        400,
        "mine-3",
    )
    assert "secret" not in str(line)
    assert ROOT_KEY not in str(line)
