"""What every answer says of itself: the request's id, and what browsers may do with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.client import Client
from harness.in_process import ROOT_KEY, Site
from harness.sockets import APPEND, PROTECTED, served
from sessions_adapters.profiles import MEMORY

EVERY: list[tuple[str, str, int]] = [
    ("GET", "/healthz", 200),
    ("HEAD", "/healthz", 200),
    ("OPTIONS", "/api/v1/sessions", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/metrics", 200),
    ("GET", "/api/v1/sessions", 200),
    ("GET", "/api/v1/sessions/", 301),
    ("POST", "/api/v1/sessions", 400),
    ("GET", "/api/v1/sessions/none", 404),
    ("GET", "/nowhere", 404),
    ("DELETE", "/api/v1/sessions", 405),
    ("GET", "/realtime/v1/sessions/chat-1/in", 200),
    ("HEAD", "/realtime/v1/sessions/chat-1/in", 200),
    ("PUT", "/realtime/v1/sessions/chat-1/in", 202),
    ("POST", "/api/v1/auth/jwt/claims", 200),
    ("GET", "/v1/streams/sessions%2Fchat-1%2Fin/records/tail", 400),
    ("GET", "/v1/nothing", 404),
    ("OPTIONS", "/v1/streams/x/records", 200),
    ("GET", "/", 200),
    ("GET", "/page/agents", 200),
    ("OPTIONS", "/page/agents", 204),
    ("POST", "/page/sessions", 403),
]


@pytest.fixture
def profile() -> str:
    """One is enough: nothing here depends on a store."""
    return MEMORY


async def ask(site: Site, method: str, path: str, **more: str) -> tuple[int, dict[str, str]]:
    """Return status and headers of an answer, whose body is not waited for."""
    sent = {"Authorization": f"Bearer {ROOT_KEY}", **{name.replace("_", "-"): value for name, value in more.items()}}
    async with site.http.request(method, site.address + path, headers=sent, allow_redirects=False) as response:
        return response.status, {name.lower(): value for name, value in response.headers.items()}


@pytest.mark.parametrize(("method", "path", "status"), EVERY)
async def test_every_answer_has_the_callers_request_id_and_tells_browsers_to_be_careful(
    site: Site, method: str, path: str, status: int
) -> None:
    await site.client().create("chat-1")
    answered, headers = await ask(site, method, path, X_Request_Id="mine-1")
    assert answered == status
    assert headers["x-request-id"] == "mine-1"
    assert headers["server"] == "sessions"
    assert headers.items() >= PROTECTED.items()
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] in ("no-store", "no-cache", "no-cache, no-transform")
    _, headers = await ask(site, method, path, X_Request_Id="not <mine>")
    assert "<" not in headers["x-request-id"]


async def test_what_holds_a_token_is_kept_by_nobody(client: Client) -> None:
    created = await client.create("chat-1")
    minted = await client.call("POST", "/api/v1/auth/public-tokens", {"scopes": ["read:sessions:chat-1"]})
    direct = await client.call("PUT", "/realtime/v1/sessions/chat-1/in")
    for answer in (created, minted, direct):
        assert answer.status < 300
        assert answer.headers["Cache-Control"] == "no-store"


async def test_the_access_log_has_a_line_for_every_answer_by_its_id_and_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sessions.access")
    ids = set()
    async with served(tmp_path, access_log=True) as site:
        await site.client().create("chat-1")
        caplog.clear()
        for method, path, _ in EVERY:
            _, headers = await ask(site, method, f"{path}?token=secret", Cookie="secret", X_Part_Id="secret")
            ids.add(headers["x-request-id"])
        body = b"secret"
        refused = [
            await site.raw(f"{APPEND}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body),
            await site.raw(b"secret / HTTP/1.1\r\nAuthorization: Bearer secret\r\n\r\n"),
            await site.raw(f"GET /{'secret' * 2000} HTTP/1.1\r\nHost: x\r\n\r\n".encode()),
        ]
        ids |= {answer.headers["x-request-id"] for answer in refused}
    lines = [vars(record) for record in caplog.records if record.name == "sessions.access"]
    assert len(ids) == len(EVERY) + 3
    assert {line["request_id"] for line in lines} == ids
    assert "secret" not in str([[line[name] for name in ("method", "path", "status")] for line in lines])
    assert ROOT_KEY not in str(lines)
