"""Requests that are too large, or no HTTP: each is refused in the shape of every error, and costs little."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks import bad_requests
from harness.in_process import Site, session_token
from harness.sockets import GET, PATIENCE, check, said, sent, until_end
from sessions_adapters.profiles import MEMORY
from sessions_server.route import Route
from sessions_server.table import ROUTES

SETTINGS = 4
"""The type of the frame that every server of HTTP/2 begins with."""


@pytest.fixture
def profile() -> str:
    """One is enough: nothing here depends on a store."""
    return MEMORY


def headers(count: int, size: int) -> str:
    return "".join(f"X-{number}: {'secret' + 'h' * size}\r\n" for number in range(count))


@pytest.mark.parametrize(
    ("request_text", "status", "code"),
    [
        (f"GET /secret{'u' * 8200} HTTP/1.1\r\nHost: x\r\n\r\n", 414, "url_too_long"),
        (f"GET /healthz?secret={'u' * 8200} HTTP/1.1\r\nHost: x\r\n\r\n", 414, "url_too_long"),
        (f"{GET}{headers(1, 17_000)}\r\n", 431, "headers_too_large"),
        (f"{GET}{headers(1, 200_000)}\r\n", 431, "headers_too_large"),
        (f"{GET}{headers(5, 4000)}\r\n", 431, "headers_too_large"),
        (f"{GET}{headers(101, 1)}\r\n", 431, "headers_too_large"),
        (f"{GET}{headers(99, 1)}\r\n", 200, ""),
        (f"GET /healthz?{'u' * 8000} HTTP/1.1\r\nHost: x\r\n{headers(3, 5000)}\r\n", 200, ""),
        ("secret\r\n\r\n", 400, "malformed_request"),
        (f"{GET}secret line\r\n\r\n", 400, "malformed_request"),
        ("GET /healthz HTTP/1.1\r\nX: secret\r\n\r\n", 400, "malformed_request"),
        (f"{GET}X: secret\x00\r\n\r\n", 400, "malformed_request"),
        (f"{GET}Content-Length: -5\r\n\r\n", 400, "malformed_request"),
        (f"{GET}Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "malformed_request"),
        (f"{GET}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "malformed_request"),
        ("GET /healthz HTTP/7.3\r\nHost: x\r\n\r\n", 400, "malformed_request"),
    ],
    ids=[
        "path",
        "query",
        "one header",
        "one huge header",
        "all headers",
        "number of headers",
        "just so many headers",
        "both just short enough",
        "no request line",
        "no header",
        "no host",
        "U+0000",
        "negative length",
        "two lengths",
        "length and chunks",
        "unknown version",
    ],
)
@pytest.mark.parametrize("piece", [1_000_000, 3000])
async def test_what_is_too_large_or_no_http_is_refused_in_the_one_shape(
    site: Site, request_text: str, status: int, code: str, piece: int
) -> None:
    data = request_text.encode("latin-1")
    async with sent(site, data[:piece]) as (reader, writer):
        for start in range(piece, len(data), piece):
            await asyncio.sleep(0)
            writer.write(data[start : start + piece])
        answer = await said(reader)
        assert answer.status == status
        if status != 200:
            check(answer, status, code)
            await until_end(reader)


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.body], ids=lambda route: f"{route.method} {route.path}"
)
@pytest.mark.parametrize("opening", ["[", '{"a":'])
async def test_json_that_is_nested_deep_is_400_on_every_route_that_reads_json(
    site: Site, route: Route, opening: str
) -> None:
    assert route.cap is not None
    path = route.path.format(session="x", run="run_x", waitpoint="waitpoint_x", io="in")
    for depth in (70, 1000, route.cap // len(opening)):
        answer = await site.raw_call(route.method, path, (opening * depth).encode()[: route.cap])
        assert (answer.status, answer.json["field"]) == (400, "body"), answer


REFUSED = {
    "bad key": 401,
    "bad token": 401,
    "broken JSON": 400,
    "deep JSON": 400,
    "body over the cap": 413,
    "bomb": 413,
    "gzip that is cut short": 400,
    "large headers": 431,
    "long URL": 414,
    "unknown route": 404,
    "no HTTP": 400,
}


async def test_what_the_benchmark_floods_a_server_with_is_refused_as_it_should_be(site: Site) -> None:
    token = session_token(site, "chat-1")
    for kind, data in bad_requests.kinds(token).items():
        async with sent(site, data) as (reader, _), asyncio.timeout(PATIENCE):
            beginning = await reader.read(12)
        if kind == "HTTP/2 garbage":
            assert beginning[3] == SETTINGS
        else:
            assert (kind, int(beginning.split()[1])) == (kind, REFUSED[kind])
