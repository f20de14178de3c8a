"""Between a client and Postgres: passes everything on, and loses the answers when a test says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import parse_qs, urlsplit

import attrs

PORT: Final = 5432
LOSING_SECONDS: Final = 0.05
BIND: Final = b"B"
"""How what carries out a prepared statement begins."""


@attrs.define(eq=False)
class PostgresProxy:
    """A loopback address that leads to a server.

    Attributes:
        upstream: The server's URL.
        is_mute: Prepared statements are carried out, but their answers are lost, and all that follows them.
    """

    upstream: str
    port: int = 0
    is_mute: bool = False
    _loop: asyncio.AbstractEventLoop = attrs.field(init=False, factory=asyncio.get_running_loop)
    _links: set[asyncio.StreamWriter] = attrs.field(init=False, factory=set)

    @property
    def url(self) -> str:
        """The URL of the same database on the way through here."""
        parts = urlsplit(self.upstream)
        user = parts.netloc.rpartition("@")[0] or "postgres"
        return f"postgresql://{user}@127.0.0.1:{self.port}{parts.path}"

    def cut(self) -> None:
        """Cut all connections; those who connect again are answered."""
        self.is_mute = False
        for writer in self._links:
            writer.transport.abort()

    def kill(self) -> None:
        """Lose all answers from now on. With :meth:`start` the proxy is something that a storm can break."""
        self.is_mute = True

    def start(self) -> None:
        """Cut what has waited for an answer for a while. Called in a thread of its own."""
        time.sleep(LOSING_SECONDS)
        self._loop.call_soon_threadsafe(self.cut)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        answers, requests = await self._connect()
        self._links |= {writer, requests}
        is_lost = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send(reader, requests, is_lost))
                tasks.create_task(_answer(answers, writer, is_lost))
        finally:
            self._links -= {writer, requests}
            writer.transport.abort()
            requests.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self.upstream)
        if folder := parse_qs(parts.query).get("host"):
            return await asyncio.open_unix_connection(f"{folder[0]}/.s.PGSQL.{parts.port or PORT}")
        return await asyncio.open_connection(parts.hostname, parts.port or PORT)

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_lost: asyncio.Event) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.is_mute and data.startswith(BIND):
                    is_lost.set()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_lost: asyncio.Event) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            if not is_lost.is_set():
                writer.write(data)
                await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def open_postgres_proxy(upstream: str) -> AsyncIterator[PostgresProxy]:
    """Open a proxy before the database *upstream*, on a free port."""
    proxy = PostgresProxy(upstream)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
