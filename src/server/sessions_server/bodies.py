"""Reading request bodies, never more than allowed."""

from __future__ import annotations

from aiohttp import StreamReader, web
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError

from sessions_server.problems import BodyTooLargeError, UnreadableBodyError


def check_length(request: web.BaseRequest, cap: int) -> None:
    """Refuse a body that says of itself that it is too large.

    Raises:
        BodyTooLargeError: ``Content-Length`` is over *cap*.
    """
    length = request.content_length
    if length is not None and length > cap:
        raise BodyTooLargeError


async def read_body(request: web.BaseRequest, cap: int) -> bytes:
    """Return the whole body, counting while reading: ``Content-Length`` may be missing, and compressed bodies grow.

    Raises:
        BodyTooLargeError: More than *cap* bytes.
        UnreadableBodyError: Its encoding is broken.
    """
    if not request.body_exists:
        return b""
    if "Expect" in request.headers:
        await ask_for_body(request)
    content = request.content
    try:
        chunk = await content.readany()
        if len(chunk) <= cap and content.at_eof():
            return chunk
        return await _read_on(content, cap, chunk)
    except (ClientPayloadError, HttpProcessingError, web.RequestPayloadError):
        raise UnreadableBodyError(reason="cannot be decoded") from None


async def ask_for_body(request: web.BaseRequest) -> None:
    """Ask for the body that the client holds back until it knows that it is wanted."""
    if request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def _read_on(content: StreamReader, cap: int, chunk: bytes) -> bytes:
    parts, size = [chunk], len(chunk)
    while chunk:
        if size > cap:
            raise BodyTooLargeError
        chunk = await content.readany()
        parts.append(chunk)
        size += len(chunk)
    return b"".join(parts)


def decode_text(raw: bytes) -> str:
    """Read a body as text, whatever its content type says.

    Raises:
        UnreadableBodyError: No UTF-8.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise UnreadableBodyError(reason="is not valid UTF-8") from None
