"""Takes connections, and ends those over HTTP/2 in peace."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from sessions_server.http2.connection import NOTICE_SECONDS, Connection
from sessions_server.http2.farewell import HTTP2_WORDS, Farewell
from sessions_server.http2.limits import Limits
from sessions_server.http2.stream import Answer
from sessions_server.http2.switch import Switch

HANDSHAKE_SECONDS: Final = 10.0
"""For TLS to be agreed on, and for saying goodbye."""
_CUT_SECONDS: Final = 1.0


@attrs.define(eq=False)
class Listener:
    """One port for both protocols.

    aiohttp ends its own connections; this ends all others.

    Attributes:
        most: How many connections there may be; None for any number.
        http1_open: How many of them speak HTTP/1.1.
        http1_surplus: What one too many is told in HTTP/1.1.
    """

    _http1: Callable[[], asyncio.Protocol]
    _answer: Answer
    _limits: Limits = attrs.field(factory=Limits)
    _tls: ssl.SSLContext | None = None
    most: int | None = None
    http1_open: Callable[[], int] = int
    http1_surplus: Callable[[], bytes] = bytes
    _servers: list[asyncio.Server] = attrs.field(init=False, factory=list)
    _undecided: set[Switch] = attrs.field(init=False, factory=set)
    _connections: set[Connection] = attrs.field(init=False, factory=set)
    _farewells: set[Farewell] = attrs.field(init=False, factory=set)

    async def open(self, host: str, port: int, sockets: Sequence[socket.socket] = ()) -> list[tuple[Any, ...]]:
        """Start to take connections; return the addresses.

        Args:
            host: Where to listen.
            port: 0 takes a free one.
            sockets: Listen already, in place of the other two; other processes may take connections from them, too.

        Raises:
            OSError: The address cannot be had.
        """
        more: dict[str, Any] = {}
        if self._tls is not None:
            more = {
                "ssl": self._tls,
                "ssl_handshake_timeout": HANDSHAKE_SECONDS,
                "ssl_shutdown_timeout": HANDSHAKE_SECONDS,
            }
        places: list[dict[str, Any]] = [{"sock": each} for each in sockets] or [{"host": host, "port": port}]
        for place in places:
            loop = asyncio.get_running_loop()
            self._servers.append(await loop.create_server(self._take, **place, backlog=128, **more))
        return [each.getsockname() for server in self._servers for each in server.sockets]

    def stop(self) -> None:
        """Take no more connections."""
        for server in self._servers:
            server.close()
        for switch in list(self._undecided):
            switch.abort()
        for farewell in list(self._farewells):
            farewell.abort()

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

    def _take(self) -> Switch:
        surplus = (self._refuse_http1, self._refuse_http2)
        return Switch(self._http1, self._speak_http2, self._limits, self._undecided, self._is_surplus, surplus)

    @property
    def count(self) -> int:
        """How many connections there are."""
        return len(self._undecided) + len(self._connections) + self.http1_open()

    def _is_surplus(self) -> bool:
        return self.most is not None and self.count > self.most

    def _refuse_http1(self) -> Farewell:
        return Farewell(self.http1_surplus, self._farewells)

    def _refuse_http2(self) -> Farewell:
        return Farewell(lambda: HTTP2_WORDS, self._farewells)

    def _speak_http2(self) -> Connection:
        return Connection(self._answer, self._limits, self._connections)
