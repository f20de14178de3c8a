"""Reading request bodies: never more than allowed, packed or not, and not for ever."""

from __future__ import annotations

import asyncio
import zlib
from datetime import timedelta
from typing import Final

import attrs
from aiohttp import web
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError

from sessions_server.http1.request import Request
from sessions_server.problems import (
    BodyTooLargeError,
    RequestTimeoutError,
    UnreadableBodyError,
    UnsupportedEncodingError,
)

BYTES_PER_SECOND: Final = 16_384
"""A body that comes at least this fast may take longer than the time for bodies."""
_GZIP: Final = zlib.MAX_WBITS | 16
_DEFLATE: Final = 8
"""What the first byte of a zlib stream ends with; some clients send ``deflate`` without that head."""


def check_length(request: web.BaseRequest, cap: int) -> None:
    """Refuse a body that says of itself that it is too large.

    Raises:
        BodyTooLargeError: ``Content-Length`` is over *cap*.
    """
    length = request.content_length
    if length is not None and length > cap:
        raise BodyTooLargeError


async def read_body(request: web.BaseRequest, cap: int, patience: timedelta) -> bytes:
    """Return the whole body, counting while reading: ``Content-Length`` may be missing, and compressed bodies grow.

    Args:
        request: Whose.
        cap: Its greatest length, unpacked.
        patience: How long it may take to come, and a second more for each 16 KiB of it.

    Raises:
        BodyTooLargeError: More than *cap* bytes.
        RequestTimeoutError: It came too slowly.
        UnreadableBodyError: Its encoding is broken, or it is cut short.
        UnsupportedEncodingError: It is packed in a way that we do not know.
    """
    if not request.body_exists:
        return b""
    inflater = _inflater_of(request)
    if "Expect" in request.headers:
        await ask_for_body(request)
    try:
        if inflater is None and request.content.is_eof():
            body = await request.content.readany()
            if len(body) > cap:
                raise BodyTooLargeError
            return body
        return await _read_on(request, cap, patience, inflater)
    except (ClientPayloadError, HttpProcessingError, web.RequestPayloadError, zlib.error):
        raise UnreadableBodyError(reason="cannot be decoded") from None


async def ask_for_body(request: web.BaseRequest) -> None:
    """Ask for the body that the client holds back until it knows that it is wanted."""
    if request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def _read_on(request: web.BaseRequest, cap: int, patience: timedelta, inflater: _Inflater | None) -> bytes:
    parts, size = list[bytes](), 0
    try:
        async with asyncio.timeout(patience.total_seconds()) as limit:
            while chunk := await request.content.readany():
                limit.reschedule((limit.when() or 0) + len(chunk) / BYTES_PER_SECOND)
                part = chunk if inflater is None else inflater.feed(chunk, cap - size + 1)
                parts.append(part)
                size += len(part)
                if size > cap:
                    raise BodyTooLargeError
    except TimeoutError:
        raise RequestTimeoutError from None
    if inflater is not None:
        inflater.close()
    return b"".join(parts)


@attrs.define(eq=False)
class _Inflater:
    """Unpacks gzip, or deflate with or without its head."""

    _is_gzip: bool
    _stream: zlib._Decompress | None = None

    def feed(self, data: bytes, most: int) -> bytes:
        """Unpack *data*, but stop at *most* bytes: a few of them may hold a thousand times as many.

        Raises:
            zlib.error: It is broken, or goes on after its end.
        """
        if self._stream is None:
            bits = zlib.MAX_WBITS if data[0] & 15 == _DEFLATE else -zlib.MAX_WBITS
            self._stream = zlib.decompressobj(_GZIP if self._is_gzip else bits)
        if self._stream.eof:
            raise zlib.error("goes on after its end")
        part = self._stream.decompress(data, most)
        if self._stream.unused_data:
            raise zlib.error("goes on after its end")
        return part

    def close(self) -> None:
        """Say that nothing more comes.

        Raises:
            UnreadableBodyError: It is not at its end.
        """
        if self._stream is None or not self._stream.eof:
            raise UnreadableBodyError(reason="is cut short")


def _inflater_of(request: web.BaseRequest) -> _Inflater | None:
    """Return what unpacks the body; None if it is as it was meant.

    Raises:
        UnsupportedEncodingError: It is packed in another way.
    """
    encoding = request.headers.get("Content-Encoding")
    if encoding is None or not isinstance(request, Request):
        return None
    match encoding.strip().lower():
        case "identity" | "":
            return None
        case "gzip" | "x-gzip" | "deflate" as known:
            return _Inflater(known != "deflate")
        case _:
            raise UnsupportedEncodingError


def decode_text(raw: bytes) -> str:
    """Read a body as text, whatever its content type says.

    Raises:
        UnreadableBodyError: No UTF-8.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise UnreadableBodyError(reason="is not valid UTF-8") from None
