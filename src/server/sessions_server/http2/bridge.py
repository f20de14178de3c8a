"""The routes of HTTP/1.1 over HTTP/2: a stream dressed as a request of aiohttp.

Browsers choose HTTP/2 whenever TLS lets them, so every route has to be there. aiohttp's request and response do not care what
carries them: they need a body to read, a writer, and a transport that they ask whether it is still open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import attrs
from aiohttp import EMPTY_PAYLOAD, HttpVersion, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_parser import RawRequestMessage
from h2.errors import ErrorCodes
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from sessions_server.exchange import BodyCutError
from sessions_server.http1.request import Request
from sessions_server.http2.limits import Http2Limits
from sessions_server.http2.stream import Stream
from sessions_server.problems import HeadersTooLargeError, HttpError, MalformedRequestError, UrlTooLongError

HTTP2: Final = HttpVersion(2, 0)
_OF_A_CONNECTION: Final = ("Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Proxy-Connection")
_PIECE: Final = 65_536


class _Transport(asyncio.Transport):
    """What a route may ask its connection, answered for the stream."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream

    def is_closing(self) -> bool:
        return not self._stream.is_open

    def abort(self) -> None:
        self._stream.break_off(ErrorCodes.CANCEL)

    def get_write_buffer_size(self) -> int:
        """Return 0 if something can be written at once: what waits, waits in its writer."""
        return 0 if self._stream.has_room else 1


class _Writer(AbstractStreamWriter):
    """Writes an answer to the stream. Framing is HTTP/2's, so what aiohttp says about it is left out."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self.output_size += len(chunk)
        await self._stream.write(bytes(chunk))

    async def write_eof(self, chunk: bytes = b"") -> None:
        if chunk:
            await self.write(chunk)

    async def drain(self) -> None:
        """Do nothing: a write has waited already."""

    def enable_chunking(self) -> None:
        """Do nothing: the end of the stream is the end of the body."""

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None:
        """Refuse: no route packs its answers, and one that began to would have to do it here, too."""
        raise NotImplementedError

    async def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> None:
        for name in _OF_A_CONNECTION:
            headers.popall(name, None)
        status = int(status_line.split(" ", 2)[1])
        self._stream.answer(status, [(name.lower(), value) for name, value in headers.items()])


class _Body(StreamReader):
    """The stream's body, read when it is asked for, so that flow control holds the client back."""

    __slots__ = ("_source",)

    def __init__(self, protocol: BaseProtocol, stream: Stream) -> None:
        super().__init__(protocol, _PIECE)
        self._source = stream

    def is_eof(self) -> bool:
        return self._source.is_body_complete

    def at_eof(self) -> bool:
        return self._source.is_read

    async def readany(self) -> bytes:
        try:
            return await self._source.read()
        except BodyCutError as error:
            raise ClientPayloadError(str(error)) from error


@attrs.frozen(eq=False)
class _Carrier:
    """What a request asks its protocol for."""

    transport: asyncio.Transport
    peername: tuple[str | None, int]
    ssl_context: None = None
    sockname: None = None
    connected: bool = True


def excess_of(stream: Stream, limits: Http2Limits) -> HttpError | None:
    """Return how a request is refused whose head is too large, or whose path is none; None if it is neither."""
    if not (stream.path.isascii() and stream.query.isascii()):
        return MalformedRequestError()
    if len(stream.path) + len(stream.query) > limits.url:
        return UrlTooLongError()
    is_too_large = len(stream.fields) > limits.header_count or stream.header_bytes > limits.header_list
    return HeadersTooLargeError() if is_too_large else None


async def answer(stream: Stream, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
    """Answer *stream* as *handle* answers requests."""
    request = _request(stream)
    response = await handle(request)
    await response.prepare(request)
    await response.write_eof()


def _request(stream: Stream) -> web.BaseRequest:
    protocol: Any = _Carrier(_Transport(stream), (stream.peer, 0))
    loop = asyncio.get_running_loop()
    headers = CIMultiDict(stream.fields)
    body = EMPTY_PAYLOAD if stream.is_read else _Body(cast(BaseProtocol, protocol), stream)
    headers.pop("Expect", None)
    url = URL.build(path=stream.path, query_string=stream.query, encoded=True)
    message = RawRequestMessage(
        stream.method, stream.path, HTTP2, CIMultiDictProxy(headers), (), False, None, False, False, url
    )
    task: Any = asyncio.current_task()
    return Request(message, body, protocol, _Writer(stream), task, loop, scheme=stream.scheme)
