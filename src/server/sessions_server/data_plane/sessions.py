"""Long answers: append sessions, read sessions, and streams of events.

Once an answer has begun, what goes wrong can only be told inside of it: by a terminal frame, or an event. A server that stops
ends them in that way, too, with a code at which clients come back at once; and so does a credential that is taken back or over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from typing import Final

import anyio
import attrs

from sessions_core.errors import UnavailableError
from sessions_server.bodies import BYTES_PER_SECOND
from sessions_server.data_plane.access import Admission, Grant
from sessions_server.data_plane.answers import EVENTS, SESSION, stream_headers
from sessions_server.data_plane.appending import Appender, joined
from sessions_server.data_plane.compression import Compression, accepted
from sessions_server.data_plane.failures import (
    BAD_FRAME,
    BAD_PROTO,
    REQUEST_TIMEOUT,
    S2Error,
    draining,
    failure_of,
    is_internal,
)
from sessions_server.data_plane.frames import FrameReader, encode_frame, encode_terminal
from sessions_server.data_plane.gate import Gate, Visitor
from sessions_server.data_plane.protobuf import decode_append_input, encode_append_ack
from sessions_server.data_plane.reading import Encoding, Events, Frames, Reader
from sessions_server.data_plane.records import Ack, AppendInput, Operation
from sessions_server.data_plane.requests import Allowance, ReadQuery
from sessions_server.exchange import BodyCutError, Exchange
from sessions_server.limits.unfinished_bytes import Share
from sessions_server.observability.logs import logger
from sessions_server.streams import Streams

REASON_SECONDS: Final = 1.0
"""So long an answer that is over waits for a silent store to say why."""


@attrs.define
class LongAnswers:
    """Carries out sessions.

    Attributes:
        slow_write: After so many seconds without taking anything a client is cut off.
        body_timeout: So many seconds a frame may take to come once it has begun, and one more for each 16 KiB of it.
    """

    _gate: Gate
    _admission: Admission
    _appender: Appender
    _reader: Reader
    _streams: Streams
    slow_write: float
    body_timeout: float

    async def append(self, exchange: Exchange, visitor: Visitor, stream: str) -> None:
        """Carry out an append session: one ack for each batch, in order, while more may be coming."""
        grant = await self._admission.admit(exchange, stream, Operation.APPEND)
        with self._gate.holding_stream(visitor, grant.channel):
            await self._append(exchange, visitor, stream)

    async def _append(self, exchange: Exchange, visitor: Visitor, stream: str) -> None:
        compression = accepted(exchange.headers.get("accept-encoding", ""))
        await exchange.start(200, stream_headers(SESSION))
        try:
            with self._gate.open_stream(visitor) as scope:
                await self._append_all(exchange, visitor, stream, compression)
            if scope.cancelled_caught:
                await self._write(exchange, encode_terminal(await self._reason(exchange, stream, Operation.APPEND)))
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - the status is gone, so it is told in a frame
            await self._write(exchange, encode_terminal(_explained(error)))

    async def read(self, exchange: Exchange, visitor: Visitor, stream: str, query: ReadQuery) -> None:
        """Carry out a read session."""
        compression = accepted(exchange.headers.get("accept-encoding", ""))
        await self._stream(exchange, visitor, stream, query, Frames(compression), SESSION)

    async def events(
        self, exchange: Exchange, visitor: Visitor, stream: str, query: ReadQuery, *, as_base64: bool
    ) -> None:
        """Send what is read as server-sent events."""
        query = query.after_event(exchange.headers.get("last-event-id"))
        await self._stream(exchange, visitor, stream, query, Events(as_base64), EVENTS)

    async def _append_all(self, exchange: Exchange, visitor: Visitor, stream: str, compression: Compression) -> None:
        incoming, clock = _Incoming(self.body_timeout), asyncio.get_running_loop().time
        try:
            with self._gate.share_of(visitor) as share:
                async with asyncio.timeout(None) as limit:
                    async for data in exchange.body():
                        limit.reschedule(None)  # the time that we take does not count
                        batches = incoming.batches(data)
                        await self._append_joined(exchange, visitor, stream, batches, compression, share, len(data))
                        incoming.check()
                        share.hold(incoming.held)
                        limit.reschedule(incoming.due_at(len(data), clock()))
        except TimeoutError:
            raise S2Error.of(REQUEST_TIMEOUT, "A frame came too slowly") from None
        except BodyCutError:
            raise S2Error.of(BAD_FRAME, "The body is cut short") from None
        incoming.close()

    async def _append_joined(
        self,
        exchange: Exchange,
        visitor: Visitor,
        stream: str,
        batches: Iterator[AppendInput],
        compression: Compression,
        share: Share,
        held: int,
    ) -> None:
        """Append *batches*, of a piece of which *held* bytes are held meanwhile."""
        for group in joined(batches):
            share.keep(held + sum(batch.cost for batch in group))
            await self._gate.wait(visitor)
            await self._append_shielded(exchange, stream, group, compression)

    async def _append_shielded(
        self, exchange: Exchange, stream: str, group: Sequence[AppendInput], compression: Compression
    ) -> None:
        """Append *group* and acknowledge it: a server that stops still says what became of it."""
        with anyio.CancelScope(shield=True):
            acks = await self._append_group(exchange, stream, group)
            frames = [encode_frame(encode_append_ack(ack), compression) for ack in acks]
            await self._write(exchange, b"".join(frames))
        await anyio.lowlevel.checkpoint()

    async def _append_group(self, exchange: Exchange, stream: str, group: Sequence[AppendInput]) -> list[Ack]:
        """Append *group* as one; what is refused so is tried one by one, so that each fails for itself."""
        grant = await self._admission.admit(exchange, stream, group[0].operation)
        if len(group) == 1:
            return [await self._appender.append(grant, group[0])]
        try:
            return await self._appender.append_all(grant, group)
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001 - it comes again, from the batch that it is about
            return await self._append_each(exchange, stream, group)

    async def _append_each(self, exchange: Exchange, stream: str, group: Sequence[AppendInput]) -> list[Ack]:
        """Append one after the other; those before one that is refused get their acks."""
        acks: list[Ack] = []
        try:
            for batch in group:
                acks += await self._append_group(exchange, stream, (batch,))
        except Exception:
            await self._write(exchange, b"".join(encode_frame(encode_append_ack(ack)) for ack in acks))
            raise
        return acks

    async def _stream(
        self,
        exchange: Exchange,
        visitor: Visitor,
        stream: str,
        query: ReadQuery,
        encoding: Encoding,
        content_type: str,
    ) -> None:
        grant = await self._admission.admit(exchange, stream, Operation.READ)
        with self._gate.holding_stream(visitor, grant.channel):
            await self._follow(exchange, visitor, grant, stream, query, encoding, content_type)

    async def _follow(
        self,
        exchange: Exchange,
        visitor: Visitor,
        grant: Grant,
        stream: str,
        query: ReadQuery,
        encoding: Encoding,
        content_type: str,
    ) -> None:
        start = await self._reader.start(grant.channel, query)
        allowance = Allowance.of(query)
        await exchange.start(200, stream_headers(content_type))
        last = encoding.end()
        try:
            with self._gate.open_stream(visitor) as scope:
                async with aclosing(self._reader.follow(grant, start, query, allowance)) as pieces:
                    async for piece in pieces:
                        records = await self._admission.shown(exchange, stream, piece.records)
                        await self._write(exchange, encoding.piece(attrs.evolve(piece, records=records), allowance))
            if scope.cancelled_caught:
                last = encoding.error(await self._reason(exchange, stream, Operation.READ))
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - the status is gone, so it is told inside
            last = encoding.error(_explained(error))
        await self._write(exchange, last)

    async def _reason(self, exchange: Exchange, stream: str, operation: Operation) -> S2Error:
        """Say why an answer is ended: its credential no longer works, or else its client is to come back."""
        if not self._streams.is_ending:
            try:
                with anyio.move_on_after(REASON_SECONDS):
                    await self._admission.admit(exchange, stream, operation)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the reason
                return _explained(error)
        return draining()

    async def _write(self, exchange: Exchange, data: bytes) -> None:
        """Write all of it, also when the session is to end meanwhile, but do not wait for ever.

        Raises:
            ConnectionResetError: The client did not make room in time.
        """
        if not data:
            return
        try:
            with anyio.CancelScope(shield=True):
                async with asyncio.timeout(self.slow_write):
                    await exchange.write(data)
        except TimeoutError:
            raise ConnectionResetError("the client is too slow") from None


@attrs.define
class _Incoming:
    """What comes in an append session. Batches are read when their turn comes, so that little is held at a time."""

    _patience: float
    _frames: FrameReader = attrs.field(init=False, factory=FrameReader)
    _failure: S2Error | None = attrs.field(init=False, default=None)
    _due_at: float | None = attrs.field(init=False, default=None)

    def batches(self, data: bytes) -> Iterator[AppendInput]:
        """Yield the batches that *data* completes, up to the first that is wrong."""
        for payload in self._frames.feed(data):
            self._due_at = None
            try:
                batch = decode_append_input(payload)
            except S2Error as error:
                is_frame = error.body.get("code") == BAD_PROTO
                self._failure = S2Error.of(BAD_FRAME, error.body["message"]) if is_frame else error
                return
            yield batch

    @property
    def held(self) -> int:
        """How many bytes of a frame that is not whole have come."""
        return self._frames.held

    def due_at(self, size: int, now: float) -> float | None:
        """Return when the frame that is half there has to be whole, *size* bytes having come *now*; None if there is none."""
        if not self.held:
            return None
        begun = now + self._patience if self._due_at is None else self._due_at
        self._due_at = begun + size / BYTES_PER_SECOND
        return self._due_at

    def check(self) -> None:
        """Say what was wrong.

        Raises:
            S2Error: With the batch after the last that was given.
        """
        failure = self._failure or self._frames.failure
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Say that nothing more comes.

        Raises:
            S2Error: The last frame is cut short.
        """
        self._frames.close()
        self.check()


def _explained(error: Exception) -> S2Error:
    failure = failure_of(error)
    if is_internal(failure):
        logger.error("a session failed", exc_info=error)
    return failure
