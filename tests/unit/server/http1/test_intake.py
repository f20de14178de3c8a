"""What comes in before it is a request: how much of it, and since when."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError

from sessions_server.connections.settings import ConnectionSettings
from sessions_server.http1.intake import Intake, refusal_of
from sessions_server.http1.limits import Http1Limits
from sessions_server.problems import HeadersTooLargeError, HttpError, MalformedRequestError, UrlTooLongError

LIMITS = Http1Limits.of(ConnectionSettings(max_url=100, max_headers=8, max_header_bytes=400))
GET = b"GET /x HTTP/1.1\r\nHost: x\r\n"
NOW = 7.0


@pytest.fixture
async def intake() -> Intake:
    parser = HttpRequestParser(
        Mock(_reading_paused=False),
        asyncio.get_running_loop(),
        2**16,
        max_line_size=LIMITS.url,
        max_field_size=LIMITS.field,
        max_headers=LIMITS.headers,
        auto_decompress=False,
    )
    return Intake(parser, LIMITS, lambda: None, lambda: NOW)


def paths(intake: Intake, data: bytes) -> list[str]:
    return [message.path for message, _ in intake.feed_data(data)[0]]


async def test_a_head_is_half_there_from_its_first_byte_to_its_last(intake: Intake) -> None:
    for piece in (b"G", b"ET /x HTTP/1.1\r\n", b"Host: x\r\n"):
        assert paths(intake, piece) == []
        assert intake.since == NOW
    assert paths(intake, b"\r\n") == ["/x"]
    assert intake.since is None


async def test_line_breaks_between_requests_are_no_head(intake: Intake) -> None:
    assert paths(intake, GET + b"\r\n") == ["/x"]
    assert paths(intake, b"\r\n\r\n") == []
    assert intake.since is None


async def test_a_body_is_no_head_however_it_comes(intake: Intake) -> None:
    assert paths(intake, b"POST /y HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n") == ["/y"]
    for _ in range(3):
        assert paths(intake, b"b" * 300) == []
        assert intake.since is None
    assert paths(intake, b"G") == []
    assert intake.since == NOW


async def test_requests_that_come_together_are_counted_one_by_one(intake: Intake) -> None:
    many = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(30))
    assert len(many) > 400
    assert paths(intake, many) == [f"/{number}" for number in range(30)]


def headers(count: int, size: int) -> bytes:
    return b"".join(b"X-%d: %b\r\n" % (number, b"h" * size) for number in range(count))


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"u" * 99), None),
        (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"u" * 100), UrlTooLongError),
        (GET + headers(7, 10) + b"\r\n", None),
        (GET + headers(8, 10) + b"\r\n", HeadersTooLargeError),
        (GET + headers(1, 390) + b"\r\n", None),
        (GET + headers(1, 400) + b"\r\n", HeadersTooLargeError),
        (GET + headers(4, 90) + b"\r\n", None),
        (GET + headers(4, 100) + b"\r\n", HeadersTooLargeError),
        (b"nonsense\r\n\r\n", MalformedRequestError),
        (GET + b"broken line\r\n\r\n", MalformedRequestError),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", MalformedRequestError),
        (b"GET /x HTTP/1.1\r\n\r\n", MalformedRequestError),
    ],
)
@pytest.mark.parametrize("piece", [10_000, 50, 1])
async def test_what_is_too_much_is_told_from_what_is_no_http(
    intake: Intake, head: bytes, expected: type[HttpError] | None, piece: int
) -> None:
    refusal = None
    try:
        for start in range(0, len(head), piece):
            intake.feed_data(head[start : start + piece])
    except HttpProcessingError as error:
        refusal = type(refusal_of(error, LIMITS))
    assert refusal is expected


async def test_a_head_that_does_not_end_is_given_up(intake: Intake) -> None:
    intake.feed_data(GET)
    with pytest.raises(BadHttpMessage):  # noqa: PT012 - some piece is one too many
        for number in range(1000):
            intake.feed_data(b"X-%d: y\r\n" % number)
    assert number < 20
