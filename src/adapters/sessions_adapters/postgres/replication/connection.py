"""The connection that replication runs over: psycopg's, read as the event loop says that there is something to read.

How this works
--------------
psycopg opens the connection. From ``START_REPLICATION`` on it is in the state *copy both*: frames come and go independently,
and only libpq's own functions are of use. None of them blocks; where one has nothing, we wait for the socket. The socket is
watched only while somebody waits, so a consumer that takes its time costs nothing and holds the server back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from sessions_adapters.postgres.config import PostgresConfig
from sessions_adapters.postgres.connecting import KEEPALIVE
from sessions_core.errors import IncompatibleStoreError, InvalidError, StoreInUseError, StoreUnavailableError

FEED: Final = "change feed"
START: Final = "START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names '{publication}')"
"""From 0/0: from where the slot was acknowledged last. Both names are checked: they need no quotes."""
FORMS: Final = {"TimeZone": "UTC", "DateStyle": "ISO", "bytea_output": "hex", "client_encoding": "UTF8"}
"""How values are written down as text."""
FRAMES_AT_ONCE: Final = 1000
CLOSING_SECONDS: Final = 2.0
_IN_USE: Final = "55006"
_PERMANENT: Final = ("42", "55000")
"""Beginnings of codes that would come again: something is missing, or the slot can no longer be used."""
_WOULD_BLOCK: Final = 0

Watch = Callable[..., None]


@attrs.define(eq=False)
class ReplicationConnection:
    """An open connection. Made by :func:`connect_for_replication`.

    Raises:
        StoreUnavailableError: The connection is lost; from any method.
    """

    _pg: PGconn

    async def start(self, slot: str, publication: str) -> None:
        """Begin to stream.

        Raises:
            StoreInUseError: Somebody else streams from the slot.
            IncompatibleStoreError: The slot or the publication does not do.
        """
        try:
            self._pg.send_query(START.format(slot=slot, publication=publication).encode())
            result = await self._result()
        except psycopg.Error as exc:
            raise StoreUnavailableError(FEED) from exc
        if result is None or result.status != ExecStatus.COPY_BOTH:
            raise _failure(result, slot)

    async def receive(self) -> list[bytes]:
        """Wait for frames; return those that are there, in order, at least one. Cancelling this loses none.

        Raises:
            IncompatibleStoreError: The server ended the stream, and would do so again.
        """
        await asyncio.sleep(0)  # where frames are always there, others get their turn here
        try:
            while not (frames := self._ready_frames()):
                await self._wait(asyncio.get_running_loop().add_reader, asyncio.get_running_loop().remove_reader)
                self._pg.consume_input()
        except psycopg.Error as exc:
            raise StoreUnavailableError(FEED) from exc
        return frames

    def send(self, frame: bytes) -> None:
        """Send *frame*, or as much of it as goes at once; the rest goes along with the next one, or the next read."""
        try:
            self._pg.put_copy_data(frame)
            self._pg.flush()
        except psycopg.Error as exc:
            raise StoreUnavailableError(FEED) from exc

    async def finish(self) -> None:
        """Tell the server that we leave, and wait until it has let the slot go, but not for long."""
        with suppress(psycopg.Error, StoreUnavailableError), anyio.move_on_after(CLOSING_SECONDS, shield=True):
            self._pg.put_copy_end()
            await self._flush()
            await self._await_end()

    async def _await_end(self) -> None:
        while True:
            count, _ = self._pg.get_copy_data(1)
            if count < _WOULD_BLOCK:
                break
            if count == _WOULD_BLOCK:
                await self._readable()
                self._pg.consume_input()
        while await self._result() is not None:
            pass

    def _ready_frames(self) -> list[bytes]:
        frames: list[bytes] = []
        while len(frames) < FRAMES_AT_ONCE:
            count, data = self._pg.get_copy_data(1)
            if count > _WOULD_BLOCK:
                frames.append(bytes(data))
            elif count == _WOULD_BLOCK or frames:  # the end comes again with the next call
                break
            else:
                raise _failure(self._pg.get_result(), "")
        return frames
