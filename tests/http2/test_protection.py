"""What is too large, too slow, too many or too old over HTTP/2, and what every answer says of itself there, too."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from h2.errors import ErrorCodes

from harness.http2 import PATIENCE, ResetError, connect
from harness.in_process import ENVIRONMENT, ROOT_KEY, Site, open_site
from sessions_server.config import Config
from sessions_server.data_plane.names import basin_of

SOON = timedelta(seconds=0.2)
AUTHORIZED = [("authorization", f"Bearer {ROOT_KEY}")]
DIRECT = [*AUTHORIZED, ("s2-basin", basin_of(ENVIRONMENT)), ("content-type", "application/json")]


@asynccontextmanager
async def served(tmp_path: Path, **settings: Any) -> AsyncIterator[Site]:
    """Serve with other *settings* than the defaults."""
    async with open_site("memory", tmp_path, Config(**settings)) as site:
        yield site


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        (f"/healthz?{'u' * 8200}", [], 414, "url_too_long"),
        ("/healthz", [(f"x-{number}", "y") for number in range(101)], 431, "headers_too_large"),
        ("/healthz", [("x-long", "h" * 17_000)], 431, "headers_too_large"),
        ("/healthz", [(f"x-{number}", "h" * 2000) for number in range(9)], 431, "headers_too_large"),
        ("/v1/streams/s/records", [(f"x-{number}", "y") for number in range(101)], 431, "headers_too_large"),
        ("/healthz", [(f"x-{number}", "h" * 1500) for number in range(9)], 200, None),
    ],
    ids=["url", "number of headers", "one header", "all headers", "number of headers, data plane", "just short enough"],
)
async def test_a_head_that_is_too_large_is_refused_and_its_connection_goes_on(
    tmp_path: Path, path: str, headers: list[tuple[str, str]], status: int, code: str | None
) -> None:
    async with served(tmp_path) as site, connect(site.port) as client:
        answer = await client.call("GET", path, headers=[*headers, ("x-request-id", "mine-1")])
        assert (answer.status, answer.json.get("code")) == (status, code)
        assert answer.headers["x-request-id"] == "mine-1"
        assert answer.headers["cache-control"] == "no-store"
        assert (await client.call("GET", "/healthz")).status == 200


async def test_a_head_that_is_much_too_large_ends_its_connection(tmp_path: Path) -> None:
    async with served(tmp_path) as site, connect(site.port) as client:
        with pytest.raises(ResetError):
            await client.call("GET", "/healthz", headers=[("x-long", "h" * 60_000)])
        assert client.goaways[-1][1] == ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/realtime/v1/sessions/chat-1/in/append", AUTHORIZED),
        ("/v1/streams/sessions%2Fchat-1%2Fin/records", DIRECT),
    ],
)
async def test_a_body_that_does_not_come_is_refused(tmp_path: Path, path: str, headers: list[tuple[str, str]]) -> None:
    async with served(tmp_path, body_timeout=SOON) as site, connect(site.port) as client:
        await site.client().create("chat-1")
        stream = client.begin("POST", path, headers)
        await stream.send(b"{")
        answer = await stream.answer()
        assert (answer.status, answer.json["code"]) == (408, "request_timeout")


async def test_an_unknown_packing_is_not_taken_for_text(tmp_path: Path) -> None:
    async with served(tmp_path) as site, connect(site.port) as client:
        await site.client().create("chat-1")
        path, headers = "/realtime/v1/sessions/chat-1/in/append", [*AUTHORIZED, ("content-encoding", "br")]
        answer = await client.call("POST", path, b"text", headers)
        assert (answer.status, answer.json["code"]) == (415, "unsupported_encoding")


async def test_an_old_connection_ends_in_peace(tmp_path: Path) -> None:
    async with served(tmp_path, connection_age=timedelta(seconds=1)) as site, connect(site.port) as client:
        await site.client().create("chat-1")
        stream = client.begin("POST", "/realtime/v1/sessions/chat-1/in/append", AUTHORIZED)
        await stream.send(b"half")
        async with asyncio.timeout(PATIENCE):
            while len(client.goaways) < 2:
                await asyncio.sleep(0.02)
        assert {code for _, code, _ in client.goaways} == {ErrorCodes.NO_ERROR}
        with pytest.raises(ResetError, match=str(int(ErrorCodes.REFUSED_STREAM))):
            await client.begin("GET", "/healthz", end=True).head()
        await stream.end()
        assert (await stream.answer()).status == 200
        async with asyncio.timeout(PATIENCE):
            await client.closed.wait()


async def test_a_subscription_that_is_old_ends_between_frames_although_its_reader_is_slow(tmp_path: Path) -> None:
    async with served(tmp_path, connection_age=timedelta(seconds=1)) as site, connect(site.port) as client:
        await site.client().create("chat-1")
        for _ in range(3):
            await site.client().append("chat-1", "x" * 100_000)
        client.gives_window = False
        begun = time.monotonic()
        stream = client.begin("GET", "/realtime/v1/sessions/chat-1/in", AUTHORIZED, end=True)
        async with asyncio.timeout(PATIENCE):
            while stream.received < 65_535:  # the window is full, in the middle of a frame
                await asyncio.sleep(0.02)
            while time.monotonic() < begun + 1.5:  # no subscription is older than 1.1 s
                await asyncio.sleep(0.02)
        client.give(stream.id, 1_000_000)
        text = (await stream.answer()).body.decode()
        *frames, rest = text.split("\n\n")
        assert (frames.pop(), rest) == ("data: [DONE]", "")
        for frame in frames:
            json.loads(frame.partition("data: ")[2])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/healthz"),
        ("HEAD", "/healthz"),
        ("OPTIONS", "/api/v1/sessions"),
        ("GET", "/nowhere"),
        ("DELETE", "/api/v1/sessions"),
        ("POST", "/api/v1/sessions"),
        ("GET", "/realtime/v1/sessions/chat-1/in"),
        ("GET", "/v1/streams/x/records"),
        ("GET", "/v1/nothing"),
        ("GET", "/"),
    ],
)
async def test_every_answer_has_the_callers_request_id_and_tells_browsers_to_be_careful(
    tmp_path: Path, method: str, path: str
) -> None:
    async with served(tmp_path) as site, connect(site.port) as client:
        asked = [*AUTHORIZED, ("x-request-id", "mine-1")]
        _, headers = await client.begin(method, path, asked, end=True).head()
        assert headers["x-request-id"] == "mine-1"
        assert headers["server"] == "sessions"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
