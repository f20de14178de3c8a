"""TLS, agreed on in front of everybody: a connection has its place, and may lose it, before it can say a word."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, cast

import attrs

from sessions_server.connections.places import Guest
from sessions_server.http2.limits import Http2Limits
from sessions_server.listening.reception import Receive, Reception
from sessions_server.listening.switch import Switch

HANDSHAKE_SECONDS: Final = 10.0
"""For TLS to be agreed on, and for saying goodbye."""


@attrs.define(eq=False)
class Handshake(asyncio.Protocol, Guest):
    """Agrees on TLS, and hands the connection on.

    Left to the loop's own server, handshakes would be counted by nobody.
    """

    _tls: ssl.SSLContext
    _receive: Receive
    _limits: Http2Limits
    _below: asyncio.Transport = attrs.field(init=False)
    _reception: Reception = attrs.field(init=False)
    _task: asyncio.Task[None] = attrs.field(init=False)
    _seen: bytes = attrs.field(init=False, default=b"")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._below = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        self._below.pause_reading()  # what comes is for TLS
        self._reception = self._receive()
        self._reception.home.add(self)
        self._task = asyncio.get_running_loop().create_task(self._agree())

    def data_received(self, data: bytes) -> None:
        """Keep what came along with the end of the handshake."""
        self._seen += data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why makes no difference
        self._reception.home.discard(self)

    def abort(self) -> None:
        """Close a connection that has not asked for anything yet."""
        self._reception.home.discard(self)
        self._below.abort()

    def make_place(self) -> bool:
        self.abort()
        return True

    async def _agree(self) -> None:
        wire = await self._encrypt()
        self._reception.home.discard(self)
        if wire is not None:
            switch = Switch(lambda: self._reception, self._limits, self._below)
            wire.set_protocol(switch)
            switch.connection_made(wire)
            if self._seen:
                speaker = cast(asyncio.Protocol, wire.get_protocol())  # the switch may be out of the way already
                speaker.data_received(self._seen)

    async def _encrypt(self) -> asyncio.Transport | None:
        """Return the transport that speaks TLS; None if there was no agreement."""
        if self._below.is_closing():
            return None
        try:
            return await asyncio.get_running_loop().start_tls(
                self._below,
                self,
                self._tls,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=HANDSHAKE_SECONDS,
            )
        except OSError as error:
            error.__traceback__ = None  # a circle: a frame of it holds the error, and with it the buffers of TLS
            return None
