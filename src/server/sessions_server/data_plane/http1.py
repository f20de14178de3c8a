"""Exchanges over HTTP/1.1, made of aiohttp's requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final

import attrs
from aiohttp import web

from sessions_server.bodies import BROKEN, ask_for_body
from sessions_server.exchange import BodyCutError, Exchange, Handler
from sessions_server.http1.request import Request

_UNDONE: Final = ("gzip", "deflate", "br", "zstd")
"""Encodings of bodies that aiohttp has undone, or refused, in an application of somebody else's."""


@attrs.define(eq=False)
class Http1Exchange(Exchange):
    """One request of HTTP/1.1.

    Attributes:
        response: What has been started; None before.
    """

    request: web.BaseRequest
    headers: Mapping[str, str] = attrs.field(init=False)
    response: web.StreamResponse | None = attrs.field(init=False, default=None)

    @headers.default
    def _lower(self) -> Mapping[str, str]:
        headers = {name.lower(): value for name, value in self.request.headers.items()}
        is_undone = not isinstance(self.request, Request) and headers.get("content-encoding", "").lower() in _UNDONE
        if is_undone:
            del headers["content-encoding"]
        return headers

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def path(self) -> str:
        return self.request.rel_url.raw_path

    @property
    def query(self) -> str:
        return self.request.rel_url.raw_query_string

    @property
    def peer(self) -> str | None:
        return self.request.remote

    @property
    def is_body_complete(self) -> bool:
        return not self.request.body_exists or self.request.content.is_eof()

    async def body(self) -> AsyncIterator[bytes]:
        if not self.request.body_exists:
            return
        if self.response is None:
            await ask_for_body(self.request)
        try:
            async for piece in self.request.content.iter_any():
                yield piece
        except BROKEN:
            raise BodyCutError from None

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.response = web.StreamResponse(status=status, headers=headers)
        await self.response.prepare(self.request)

    async def write(self, data: bytes) -> None:
        assert self.response is not None
        await self.response.write(data)


async def answer(handle: Handler, request: web.BaseRequest) -> web.StreamResponse:
    """Let *handle* answer *request*."""
    exchange = Http1Exchange(request)
    try:
        await handle(exchange)
        assert exchange.response is not None
        await exchange.response.write_eof()
    except ConnectionError:
        # The client has left, or was too slow. Raised, this would be logged as a failure of ours.
        if exchange.response is None:
            raise
        if request.transport is not None:
            request.transport.abort()
    return exchange.response
