"""An exchange whose answer says what every answer of this server says, and of which is known how it was answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import attrs
from multidict import CIMultiDict

from sessions_server import cors
from sessions_server.exchange import Exchange
from sessions_server.observability.request_ids import REQUEST_ID
from sessions_server.protection import protect


@attrs.define(eq=False)
class ObservedExchange(Exchange):
    """Wraps another.

    Attributes:
        request_id: By which it is found in the answer and in the log.
        status: Of the answer; None until it has begun.
    """

    _exchange: Exchange
    request_id: str
    status: int | None = attrs.field(init=False, default=None)
    headers: Mapping[str, str] = attrs.field(init=False)

    @headers.default
    def _same(self) -> Mapping[str, str]:
        return self._exchange.headers

    @property
    def method(self) -> str:
        return self._exchange.method

    @property
    def path(self) -> str:
        return self._exchange.path

    @property
    def query(self) -> str:
        return self._exchange.query

    @property
    def peer(self) -> str | None:
        return self._exchange.peer

    @property
    def is_body_complete(self) -> bool:
        return self._exchange.is_body_complete

    def body(self) -> AsyncIterator[bytes]:
        return self._exchange.body()

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        said = CIMultiDict({**headers, "server": "sessions", REQUEST_ID: self.request_id})
        protect(said)
        cors.admit(self.headers.get("origin"), said)
        await self._exchange.start(status, {name.lower(): value for name, value in said.items()})

    async def write(self, data: bytes) -> None:
        await self._exchange.write(data)
