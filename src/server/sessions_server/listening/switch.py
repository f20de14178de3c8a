"""Which protocol a new connection speaks: its first bytes say so.

HTTP/2 begins with 24 bytes that no HTTP/1.1 request begins with. Once it is clear, the transport talks to the chosen protocol
and nothing stands in between, so a request costs what it did without this.
"""

from __future__ import annotations

import asyncio
from typing import cast

import attrs

from sessions_server.connections.places import Guest, cut
from sessions_server.http2.frames import PREFACE
from sessions_server.http2.limits import Http2Limits
from sessions_server.listening.reception import Make, Receive, Reception

ALPN = ("h2", "http/1.1")
"""What is offered under TLS, the better one first."""


@attrs.define(eq=False)
class Switch(asyncio.Protocol, Guest):
    """Holds a connection until it is clear what it speaks, but only so long.

    ``below`` is what carries it, if that is not its own transport.
    """

    _receive: Receive
    _limits: Http2Limits
    _below: asyncio.Transport | None = None
    _transport: asyncio.Transport = attrs.field(init=False)
    _reception: Reception = attrs.field(init=False)
    _timer: asyncio.TimerHandle = attrs.field(init=False)
    _seen: bytes = attrs.field(init=False, default=b"")
    _must_be_http2: bool = attrs.field(init=False, default=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        tls = transport.get_extra_info("ssl_object")
        agreed = None if tls is None else tls.selected_alpn_protocol()
        self._reception = self._receive()
        self._reception.home.add(self)
        self._give_up_after(self._limits.idle)
        if agreed == "http/1.1":
            self._hand_over(self._reception.http1, b"")
        self._must_be_http2 = agreed == "h2"

    def data_received(self, data: bytes) -> None:
        if not self._seen:
            self._timer.cancel()
            self._give_up_after(self._limits.headers)
        self._seen += data
        if self._seen.startswith(PREFACE):
            self._hand_over(self._reception.http2, self._seen[len(PREFACE) :])
        elif PREFACE.startswith(self._seen):
            return
        elif self._must_be_http2:
            self.abort()
        else:
            self._hand_over(self._reception.http1, self._seen)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why makes no difference
        self._leave()

    def abort(self) -> None:
        """Close a connection that has not asked for anything yet."""
        self._leave()
        cut(self._transport, self._below)

    def make_place(self) -> bool:
        self.abort()
        return True

    def _give_up_after(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self.abort)

    def _hand_over(self, make: Make, data: bytes) -> None:
        self._leave()
        protocol = make(self._below)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if data:
            protocol.data_received(data)

    def _leave(self) -> None:
        self._timer.cancel()
        self._reception.home.discard(self)
