"""The connection that replication runs over: psycopg's, read as the event loop says that there is something to read.

How this works
--------------
psycopg opens the connection. From ``START_REPLICATION`` on it is in the state *copy both*: frames come and go independently,
and only libpq's own functions are of use. None of them blocks; where one has nothing, we wait for the socket. The socket is
watched only while somebody waits, so a consumer that takes its time costs nothing and holds the server back.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

import anyio
import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from sessions_adapters.postgres.config import PostgresConfig
from sessions_adapters.postgres.connecting import KEEPALIVE
from sessions_adapters.postgres.replication.setup import FEED, NEW_SLOT, explain_refusal, unavailable
from sessions_core.errors import IncompatibleStoreError, InvalidError, StoreInUseError, StoreUnavailableError

START: Final = "START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names '{publication}')"
"""From 0/0: from where the slot was acknowledged last. Both names are checked: they need no quotes."""
FORMS: Final = {"TimeZone": "UTC", "DateStyle": "ISO", "bytea_output": "hex", "client_encoding": "UTF8"}
"""How values are written down as text."""
WHO: Final = "Who has it: SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}';"
FRAMES_AT_ONCE: Final = 1000
CLOSING_SECONDS: Final = 2.0
_IN_USE: Final = b"55006"
_PERMANENT: Final = (b"42", b"55000")
"""Beginnings of codes that would come again: something is missing, or the slot can no longer be used."""
_WOULD_BLOCK: Final = 0


class ServerError(Exception):
    """What the server said; kept as the cause of our errors."""


@attrs.define(eq=False)
class ReplicationConnection:
    """An open connection. Made by :func:`connect_for_replication`.

    Raises:
        StoreUnavailableError: The connection is lost; from any method but ``finish``.
    """

    _pg: PGconn
    _slot: str
    _has_ended: bool = attrs.field(init=False, default=False)

    async def start(self, publication: str) -> None:
        """Begin to stream.

        Raises:
            StoreInUseError: Somebody else streams from the slot.
            IncompatibleStoreError: The slot or the publication does not do.
        """
        with _translated():
            self._pg.send_query(START.format(slot=self._slot, publication=publication).encode())
            result = await self._result()
            if result is None or result.status != ExecStatus.COPY_BOTH:
                raise _failure(result, self._slot)

    async def receive(self) -> list[bytes]:
        """Wait for frames; return those that are there, in order, at least one. Cancelling this loses none.

        Raises:
            IncompatibleStoreError: The server ended the stream, and would do so again.
        """
        await asyncio.sleep(0)  # where frames are always there, others get their turn here
        with _translated():
            if frames := await self._next_frames():
                return frames
            raise _failure(await self._result(), self._slot)

    def send(self, frame: bytes) -> None:
        """Send *frame*, or as much of it as goes at once; the rest goes along with the next one, or the next read."""
        with _translated():
            self._pg.put_copy_data(frame)
            self._pg.flush()

    async def finish(self) -> None:
        """Tell the server that we leave, and wait until it has let the slot go, but not for long."""
        with suppress(psycopg.Error), anyio.move_on_after(CLOSING_SECONDS, shield=True):
            self._pg.put_copy_end()
            while await self._next_frames():
                pass  # nobody wants them any more
            while await self._result() is not None:
                pass

    async def _next_frames(self) -> list[bytes]:
        """Wait for frames; none means that the stream has ended."""
        while not (frames := self._ready_frames()) and not self._has_ended:
            await self._readable()
            self._pg.consume_input()
        return frames

    def _ready_frames(self) -> list[bytes]:
        frames: list[bytes] = []
        while len(frames) < FRAMES_AT_ONCE and not self._has_ended:
            count, data = self._pg.get_copy_data(1)
            if count == _WOULD_BLOCK:
                break
            if count > _WOULD_BLOCK:
                frames.append(bytes(data))
            else:
                self._has_ended = True
        return frames

    async def _result(self) -> PGresult | None:
        """Wait for the next answer to a command; None if there is no more."""
        while self._pg.flush():
            await self._writable()
        while self._pg.is_busy():
            await self._readable()
            self._pg.consume_input()
        return self._pg.get_result()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        await _until_ready(self._pg.socket, loop.add_reader, loop.remove_reader)

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        await _until_ready(self._pg.socket, loop.add_writer, loop.remove_writer)


@asynccontextmanager
async def connect_for_replication(config: PostgresConfig, slot: str) -> AsyncIterator[ReplicationConnection]:
    """Open a connection for the block, to stream from *slot*.

    Raises:
        InvalidError: The URL has parts that libpq does not know.
        IncompatibleStoreError: The role may not replicate.
        StoreUnavailableError: No connection.
    """
    connection = await _connect(config)
    try:
        opened = ReplicationConnection(connection.pgconn, slot)
        try:
            yield opened
        finally:
            await opened.finish()
    finally:
        with anyio.CancelScope(shield=True):
            await connection.close()


async def _connect(config: PostgresConfig) -> psycopg.AsyncConnection[Any]:
    try:
        return await psycopg.AsyncConnection.connect(**_parameters(config))
    except psycopg.ProgrammingError as exc:
        raise InvalidError("url", "has parts that libpq, which replication connects with, does not know") from exc
    except psycopg.Error as exc:
        if reason := await explain_refusal(config):  # libpq does not tell the code of such a failure
            raise IncompatibleStoreError(reason) from exc
        raise unavailable(exc) from exc


def _parameters(config: PostgresConfig) -> dict[str, Any]:
    given = conninfo_to_dict(config.url)
    options = [str(given.get("options") or ""), *(f"-c {name}={value}" for name, value in (FORMS | KEEPALIVE).items())]
    return {
        **given,
        "replication": "database",
        "application_name": "sessions-replication",
        "options": " ".join(options),
        "connect_timeout": math.ceil(config.connect_timeout.total_seconds()),
        "autocommit": True,
        **{name.removeprefix("tcp_"): value for name, value in KEEPALIVE.items()},
    }


async def _until_ready(socket: int, watch: Callable[..., None], unwatch: Callable[[int], bool]) -> None:
    ready = asyncio.get_running_loop().create_future()
    watch(socket, _note, ready)
    try:
        await ready
    finally:
        unwatch(socket)


def _note(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as exc:
        raise unavailable(exc) from exc


def _failure(result: PGresult | None, slot: str) -> Exception:
    """Return our error for a stream that the server did not begin, or ended."""
    code = b"" if result is None else result.error_field(DiagnosticField.SQLSTATE) or b""
    error: Exception = StoreUnavailableError(FEED)
    if code == _IN_USE:
        error = StoreInUseError(
            f"The replication slot {slot!r} is in use; there is one change feed at a time. {WHO.format(slot=slot)}"
        )
    elif code.startswith(_PERMANENT):
        error = IncompatibleStoreError(
            f"The server does not stream from the replication slot {slot!r}: its publication has been missing since then, "
            f"or its log is gone. {NEW_SLOT.format(slot=slot)}"
        )
    error.__cause__ = ServerError("" if result is None else result.get_error_message())
    return error
