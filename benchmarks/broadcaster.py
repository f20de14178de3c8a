"""The yardstick of the fan-out: a bare protocol that writes each record to all its readers, in the bytes of our server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from time import time
from typing import Any, Final

from benchmarks.caller import HOST
from benchmarks.yardsticks import open_database, serve_until_end, store
from sessions_core.domain.channel import Batch, Record, data_record
from sessions_core.domain.ids import PartId
from sessions_server.sse import encode_frames, encode_ping

Store = Callable[[str, str], object]

_LENGTH: Final = re.compile(rb"\r\nContent-Length: (\d+)")
_PART: Final = re.compile(rb"\r\nX-Part-Id: (\S+)")
_ANSWER: Final = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n{"ok":true,"seq":0}'
_STREAM: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Room:
    """Those who read, and how many records they have got."""

    def __init__(self, keep: Store | None = None) -> None:
        self.readers: set[asyncio.Transport] = set()
        self._keep = keep
        self._seq = 0

    def join(self, transport: asyncio.Transport) -> None:
        """Answer a subscription."""
        if not self.readers:
            self._seq = 0
        self.readers.add(transport)
        transport.write(_STREAM + _chunk(encode_ping(self._seq, 0, 0)))

    def tell(self, text: str, part: str) -> None:
        """Store a record, if that is wanted, and write it to all readers."""
        if self._keep is not None:
            self._keep(part, text)
        now = int(time() * 1000)
        record = Record(self._seq, now, data_record(text, PartId(part)).body)
        self._seq += 1
        chunk = _chunk(b"".join(encode_frames(Batch((record,), self._seq, now))))
        for reader in self.readers:
            reader.write(chunk)


class Member(asyncio.Protocol):
    """A connection: a reader, or a writer."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end]
            if head.startswith(b"GET"):
                self._rest = b""
                self._room.join(self._transport)
                return
            start, length = end + 4, int(_LENGTH.findall(head)[0])
            if len(self._rest) < start + length:
                return
            body, self._rest = self._rest[start : start + length], self._rest[start + length :]
            self._room.tell(body.decode(), _PART.findall(head)[0].decode())
            self._transport.write(_ANSWER)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._room.readers.discard(self._transport)


def serve_broadcast(pipe: Connection[Any, Any]) -> None:
    """Serve without storing; send the address over *pipe*, end with it."""
    asyncio.run(_serve(Room(), pipe))


def serve_synced_broadcast(pipe: Connection[Any, Any], path: Path) -> None:
    """Serve, storing at *path* before anybody is told; send the address over *pipe*, end with it."""
    with open_database(path) as database:
        asyncio.run(_serve(Room(lambda part, text: store(database, "", part, text)), pipe))


async def _serve(room: Room, pipe: Connection[Any, Any]) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Member(room), HOST, 0, backlog=1024)
    async with server:
        await serve_until_end(pipe, server.sockets[0].getsockname()[1])
        for reader in list(room.readers):
            reader.abort()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
