"""Reading request bodies: never more than allowed, packed or not, and not for ever.

A packed body is unpacked when all of it is there. So one that does not end holds what its client has sent, and not the thousand
times as much that may be in it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final, TypeVar

from aiohttp import web
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError

from sessions_server.exchange import BodyCutError
from sessions_server.http1.request import Request
from sessions_server.inflating import DEFLATE, GZIP, ZLIB, inflate
from sessions_server.limits.unfinished_bytes import REQUEST_BYTES, Share
from sessions_server.problems import (
    BodyTooLargeError,
    RequestTimeoutError,
    UnreadableBodyError,
    UnsupportedEncodingError,
)

T = TypeVar("T")
BYTES_PER_SECOND: Final = 16_384
"""A body that comes at least this fast may take longer than the time for bodies."""
BROKEN: Final = (ClientPayloadError, HttpProcessingError, web.RequestPayloadError)
"""What aiohttp raises for a body that cannot be read to its end."""
_PACKING: Final = 16_384
"""So much longer than allowed may a body be as long as it is packed: what cannot be made smaller becomes larger."""
_ZLIB_HEAD: Final = 8
"""What the first byte of a zlib stream ends with; some clients send ``deflate`` without that head."""


def check_length(request: web.BaseRequest, cap: int) -> None:
    """Refuse a body that says of itself that it is too large.

    Raises:
        BodyTooLargeError: ``Content-Length`` is over *cap*.
    """
    length = request.content_length
    if length is not None and length > cap:
        raise BodyTooLargeError


async def read_body(request: web.BaseRequest, cap: int, patience: timedelta, share: Share) -> bytes:
    """Return the whole body, counting while reading: ``Content-Length`` may be missing, and compressed bodies grow.

    Args:
        request: Whose.
        cap: Its greatest length, unpacked.
        patience: How long it may take to come, and a second more for each 16 KiB of it.
        share: Counts what is held while it comes, and then the body, until it is released.

    Raises:
        BodyTooLargeError: More than *cap* bytes.
        RequestTimeoutError: It came too slowly.
        TooMuchUnfinishedError: Too much is held for others.
        UnreadableBodyError: Its encoding is broken, or it is cut short.
        UnsupportedEncodingError: It is packed in a way that we do not know.
    """
    if not request.body_exists:
        return b""
    encoding = _encoding_of(request)
    longest = cap if encoding is None else cap + _PACKING
    try:
        if request.content.is_eof():
            body = await request.content.readany()
        else:
            await ask_for_body(request)
            body = await collect(request.content.iter_any(), longest, patience, share)
    except BROKEN:
        raise UnreadableBodyError(reason="cannot be decoded") from None
    if len(body) > longest:
        raise BodyTooLargeError
    if encoding is not None:
        body = _unpack(body, encoding, cap)
    share.keep(len(body))
    return body


async def collect(pieces: AsyncIterator[bytes], cap: int, patience: timedelta, share: Share) -> bytes:
    """Put a body together as it comes.

    Args:
        pieces: What comes of it.
        cap: Its greatest length, as it comes.
        patience: How long it may take to come, and a second more for each 16 KiB of it.
        share: Counts what is held of it meanwhile. What it counts at the end is for the caller to change.

    Raises:
        BodyTooLargeError: More than *cap* bytes.
        RequestTimeoutError: It came too slowly.
        TooMuchUnfinishedError: Too much is held for others.
    """
    body = bytearray()  # pieces may be of one byte each, and would take many times as much
    try:
        share.hold(REQUEST_BYTES)
        async with asyncio.timeout(patience.total_seconds()) as limit:
            async for piece in pieces:
                limit.reschedule((limit.when() or 0) + len(piece) / BYTES_PER_SECOND)
                body += piece
                if len(body) > cap:
                    raise BodyTooLargeError
                share.hold(REQUEST_BYTES + len(body))
    except TimeoutError:
        raise RequestTimeoutError from None
    return bytes(body)


async def ask_for_body(request: web.BaseRequest) -> None:
    """Ask for the body that the client holds back until it knows that it is wanted."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def drop(pieces: AsyncIterator[bytes]) -> None:
    """Take what comes of a body that nobody wants to its end, however that is, and keep nothing of it."""
    with suppress(*BROKEN, BodyCutError, ConnectionError):
        async for _ in pieces:
            pass


async def without_body(pieces: AsyncIterator[bytes], handle: Callable[[], Awaitable[T]]) -> T:
    """Return what *handle* does, and drop meanwhile what comes: a long answer would hold what is not read for as long as it takes."""
    dropping = asyncio.create_task(drop(pieces))
    try:
        return await handle()
    finally:
        dropping.cancel()
        await asyncio.wait([dropping])  # only one may read a body, and who serves the connection will


def _encoding_of(request: web.BaseRequest) -> str | None:
    """Return how the body is packed; None if it is as it was meant.

    Raises:
        UnsupportedEncodingError: It is packed in a way that we do not know.
    """
    encoding = request.headers.get("Content-Encoding")
    if encoding is None or not isinstance(request, Request):
        return None
    match encoding.strip().lower():
        case "identity" | "":
            return None
        case "gzip" | "x-gzip" | "deflate" as known:
            return known
        case _:
            raise UnsupportedEncodingError


def _unpack(body: bytes, encoding: str, cap: int) -> bytes:
    try:
        return inflate(body, _window_of(body, encoding), cap)
    except OverflowError:
        raise BodyTooLargeError from None
    except EOFError:
        raise UnreadableBodyError(reason="is cut short") from None
    except zlib.error:
        raise UnreadableBodyError(reason="cannot be decoded") from None


def _window_of(body: bytes, encoding: str) -> int:
    if encoding != "deflate":
        return GZIP
    return ZLIB if body[:1] and body[0] & 15 == _ZLIB_HEAD else DEFLATE


def decode_text(raw: bytes) -> str:
    """Read a body as text, whatever its content type says.

    Raises:
        UnreadableBodyError: No UTF-8.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise UnreadableBodyError(reason="is not valid UTF-8") from None
