"""Takes connections, and ends those over HTTP/2 in peace."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
from h2.errors import ErrorCodes

from sessions_server.connections.farewell import Farewell
from sessions_server.connections.places import Places
from sessions_server.http2.connection import NOTICE_SECONDS, Connection
from sessions_server.http2.frames import EMPTY_SETTINGS, goaway
from sessions_server.http2.limits import Http2Limits
from sessions_server.http2.stream import Answer
from sessions_server.listening.handshake import Handshake
from sessions_server.listening.reception import Make, Reception, Undecided
from sessions_server.listening.switch import Switch

_CUT_SECONDS: Final = 1.0
_SURPLUS: Final = EMPTY_SETTINGS + goaway(0, ErrorCodes.ENHANCE_YOUR_CALM, "too many connections")
"""What one connection too many is told in HTTP/2."""


@attrs.define(eq=False)
class Listener:
    """One port for both protocols.

    aiohttp ends its own connections; this ends all others.

    Attributes:
        places: How many connections there may be, and who makes place.
        http1_open: How many speak HTTP/1.1.
        http1_surplus: What one too many is told in HTTP/1.1.
    """

    _http1: Make
    _answer: Answer
    _limits: Http2Limits = attrs.field(factory=Http2Limits)
    _tls: ssl.SSLContext | None = None
    places: Places = attrs.field(factory=Places)
    http1_open: Callable[[], int] = int
    http1_surplus: Callable[[], bytes] = bytes
    _servers: list[asyncio.Server] = attrs.field(init=False, factory=list)
    _undecided: Undecided = attrs.field(init=False)
    _connections: set[Connection] = attrs.field(init=False, factory=set)
    _served: Reception = attrs.field(init=False)
    _surplus: Reception = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._undecided = Undecided(self.places)
        self._served = Reception(self._undecided, self._http1, self._speak_http2)
        self._surplus = Reception(self.places.leaving, self._refuse_http1, self._refuse_http2)

    async def open(self, host: str, port: int, sockets: Sequence[socket.socket] = ()) -> list[tuple[Any, ...]]:
        """Start to take connections; return the addresses.

        Args:
            host: Where to listen.
            port: 0 takes a free one.
            sockets: Listen already, in place of the other two; other processes may take connections from them, too.

        Raises:
            OSError: The address cannot be had.
        """
        places: list[dict[str, Any]] = [{"sock": each} for each in sockets] or [{"host": host, "port": port}]
        for place in places:
            loop = asyncio.get_running_loop()
            self._servers.append(await loop.create_server(self._take, **place, backlog=128))
        return [each.getsockname() for server in self._servers for each in server.sockets]

    def stop(self) -> None:
        """Take no more connections."""
        for server in self._servers:
            server.close()
        self._undecided.abort()
        self.places.leaving.abort()

    async def close(self, patience: float) -> None:
        """Take no more requests, and end all connections.

        Clients are told first and refused a little later, so that what they sent meanwhile is still answered.

        Args:
            patience: For so many seconds requests under way may go on.
        """
        if not self._connections:
            return
        for connection in list(self._connections):
            connection.announce()
        await asyncio.sleep(NOTICE_SECONDS)
        for connection in list(self._connections):
            connection.leave()
        await self._wait(patience)
        for connection in list(self._connections):
            connection.cut_off()
        await self._wait(_CUT_SECONDS)
        for connection in list(self._connections):
            connection.abort()
        await self._wait(_CUT_SECONDS)

    async def _wait(self, patience: float) -> None:
        waits = [asyncio.create_task(each.wait_until_gone()) for each in self._connections]
        if waits:
            _, late = await asyncio.wait(waits, timeout=patience)
            for task in late:
                task.cancel()

    def _take(self) -> asyncio.Protocol:
        if self._tls is None:
            return Switch(self._receive, self._limits)
        return Handshake(self._tls, self._receive, self._limits)

    @property
    def count(self) -> int:
        """How many connections have a place."""
        return len(self._undecided) + len(self._connections) + self.http1_open()

    def _receive(self) -> Reception:
        return self._served if self.places.find(self.count) else self._surplus

    def _refuse_http1(self, below: asyncio.Transport | None) -> Farewell:
        return Farewell(self.http1_surplus, self.places.leaving, below)

    def _refuse_http2(self, below: asyncio.Transport | None) -> Farewell:
        return Farewell(lambda: _SURPLUS, self.places.leaving, below)

    def _speak_http2(self, below: asyncio.Transport | None) -> Connection:
        return Connection(self._answer, self._limits, self._connections, self.places, below)
