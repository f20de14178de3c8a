"""Reading streams: as one answer, as a session of frames, or as server-sent events.

All three read through the hub like every other subscriber, so what is followed by many is read from the log once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AbstractContextManager
from time import time
from typing import Final, Protocol

import anyio
import attrs

from sessions_core.domain.channel import Batch, Channel, Record
from sessions_core.services.channel_service import ChannelService, Reading
from sessions_server.data_plane import json_forms, protobuf
from sessions_server.data_plane.access import Grant
from sessions_server.data_plane.compression import Compression
from sessions_server.data_plane.failures import S2Error, unwritten
from sessions_server.data_plane.frames import encode_frame, encode_terminal
from sessions_server.data_plane.records import MAX_BYTES, MAX_RECORDS, Position
from sessions_server.data_plane.requests import Allowance, ReadQuery, heartbeat_pause, metered_size
from sessions_server.sse import without_tokens

DONE: Final = b"data: [DONE]\n\n"


@attrs.frozen
class Piece:
    """A part of what is read.

    Attributes:
        records: Empty in a sign of life.
        tail: Where the stream ends, if the reader is there.
    """

    records: tuple[Record, ...]
    tail: Position | None


class Encoding(Protocol):
    """How the pieces of a long answer are written."""

    def piece(self, piece: Piece, allowance: Allowance) -> bytes:
        """Write a piece, which has been taken from *allowance*."""

    def error(self, error: S2Error) -> bytes:
        """Write the end of an answer that broke."""

    def end(self) -> bytes:
        """Write the end of one that did not."""


@attrs.frozen
class Frames(Encoding):
    """Frames of protobuf messages."""

    compression: Compression

    def piece(self, piece: Piece, allowance: Allowance) -> bytes:  # noqa: ARG002 - nothing is counted here
        return encode_frame(protobuf.encode_read_batch(piece.records, piece.tail), self.compression)

    def error(self, error: S2Error) -> bytes:
        return encode_terminal(error)

    def end(self) -> bytes:
        return b""


@attrs.frozen
class Events(Encoding):
    """Server-sent events; the id of one is all that a reader needs to come back after it."""

    as_base64: bool

    def piece(self, piece: Piece, allowance: Allowance) -> bytes:
        if not piece.records:
            assert piece.tail is not None
            return b"event: ping\ndata: %b\n\n" % json_forms.encode_ping(piece.tail, int(time() * 1000))
        place = f"{piece.records[-1].seq},{allowance.given_count},{allowance.given_bytes}".encode()
        text = json_forms.encode_read_batch(piece.records, piece.tail, as_base64=self.as_base64)
        return b"event: batch\nid: %b\ndata: %b\n\n" % (place, text)

    def error(self, error: S2Error) -> bytes:
        return b"event: error\ndata: %b\n\n" % error.text

    def end(self) -> bytes:
        return DONE


@attrs.define
class Reader:
    """Reads for those who have been allowed to."""

    _channels: ChannelService

    async def tail(self, grant: Grant) -> Position:
        """Return where the stream ends."""
        tail = await self._channels.tail(grant.channel)
        return Position(tail.next_seq, tail.timestamp)

    async def read(self, grant: Grant, query: ReadQuery, waiting: AbstractContextManager[object]) -> Piece:
        """Return what is there, or what comes first within the time that *query* waits.

        Args:
            grant: What may be read.
            query: What is to be read.
            waiting: A block to wait in, which may end the wait earlier.

        Raises:
            S2Error: Nothing is written there yet.
        """
        query = query.for_one_answer()
        start = await self.start(grant.channel, query)
        allowance = Allowance.of(query)
        batch = await self._channels.log.read(grant.channel, start, query.count or 0)
        if not batch.records and query.longest_silence and not allowance.is_used_up:
            with waiting:
                batch = await self._wait(grant.channel, start, query.longest_silence) or batch
        records = _taken(self._shown(grant, batch).records, allowance)
        is_at_tail = bool(records) and records[-1].seq + 1 == batch.next_seq
        tail = Position(batch.next_seq, batch.timestamp)
        return Piece(records, tail if is_at_tail or not batch.records else None)

    async def follow(self, grant: Grant, start: int, query: ReadQuery, allowance: Allowance) -> AsyncGenerator[Piece]:
        """Yield what is there from *start* on and then what comes, until *query* has had enough.

        Raises:
            ChannelUnavailableError: The log is lost.
        """
        async with self._channels.subscribe(grant.channel, start - 1 if start else None) as reading:
            silence = _Silence(query.longest_silence)
            while not allowance.is_used_up:
                if reading.is_caught_up and reading.has_reached_end:
                    if not silence.is_allowed:
                        return
                    if silence.begin():
                        yield Piece((), Position(reading.next_seq, reading.timestamp))
                batch = await reading.next(silence.timeout())
                if batch is not None:
                    silence.end()
                    for group in _groups(record for record in self._shown(grant, batch).records if record.seq >= start):
                        if allowed := _taken(group, allowance):
                            yield Piece(allowed, _tail_after(allowed, reading))
                        if len(allowed) < len(group):
                            return
                elif silence.is_over:
                    return
                else:
                    yield Piece((), Position(reading.next_seq, reading.timestamp))

    async def start(self, channel: Channel, query: ReadQuery) -> int:
        """Return the seq at which a reading starts.

        Raises:
            S2Error: Nothing is written there yet, and it may not wait.
        """
        tail = await self._channels.tail(channel)
        end = Position(tail.next_seq, tail.timestamp)
        if query.timestamp is not None:
            is_beyond = query.timestamp > tail.timestamp
            start = tail.next_seq if is_beyond else await self._find(channel, query.timestamp, tail.first_seq, end.seq)
        else:
            offset = query.tail_offset or 0
            start = max(tail.next_seq - offset, 0) if query.seq_num is None else query.seq_num
            is_beyond = start > tail.next_seq
        if is_beyond and not query.clamp:
            raise unwritten(end.seq, end.timestamp)
        start = min(start, tail.next_seq)
        if start == tail.next_seq and not query.longest_silence:
            raise unwritten(end.seq, end.timestamp)
        return start

    async def _find(self, channel: Channel, timestamp: int, first: int, end: int) -> int:
        """Return the seq of the first record that came at *timestamp* or later; times never fall along a channel."""
        while first < end:
            middle = (first + end) // 2
            found = (await self._channels.log.read(channel, middle, 1)).records
            if found and found[0].seq < end and found[0].timestamp < timestamp:
                first = found[0].seq + 1
            else:
                end = middle
        return first

    async def _wait(self, channel: Channel, start: int, seconds: float) -> Batch | None:
        async with self._channels.subscribe(channel, start - 1 if start else None) as reading:
            return await reading.next(seconds)

    @staticmethod
    def _shown(grant: Grant, batch: Batch) -> Batch:
        return without_tokens(batch) if grant.hides_tokens else batch


@attrs.define
class _Silence:
    """How long nothing has come, and how long that may be so.

    Attributes:
        since: When the reader arrived at the tail; None while it has something to read.
    """

    longest: float
    since: float | None = None

    @property
    def is_allowed(self) -> bool:
        """Whether there may be any."""
        return self.longest > 0

    @property
    def is_over(self) -> bool:
        """Whether it has been long enough."""
        return self.since is not None and anyio.current_time() >= self.since + self.longest

    def begin(self) -> bool:
        """Note that there is nothing to read; tell whether that is new."""
        is_new = self.since is None
        if is_new:
            self.since = anyio.current_time()
        return is_new

    def end(self) -> None:
        """Note that something came."""
        self.since = None

    def timeout(self) -> float:
        """Return for how many seconds to wait before there is something to do."""
        if self.since is None:
            return heartbeat_pause()
        return min(heartbeat_pause(), max(self.since + self.longest - anyio.current_time(), 0))


def _taken(records: tuple[Record, ...], allowance: Allowance) -> tuple[Record, ...]:
    """Return the first of *records* that are allowed."""
    for count, record in enumerate(records):
        if not allowance.take(record):
            return records[:count]
    return records


def _tail_after(records: tuple[Record, ...], reading: Reading) -> Position | None:
    """Return the tail if the last of *records* is at it."""
    is_last = records[-1].seq + 1 == reading.next_seq
    return Position(reading.next_seq, reading.timestamp) if is_last else None


def _groups(records: Iterable[Record]) -> Iterator[tuple[Record, ...]]:
    """Cut *records* so that no group is larger than a batch may be."""
    group: list[Record] = []
    size = 0
    for record in records:
        weight = metered_size(record)
        if group and (len(group) >= MAX_RECORDS or size + weight > MAX_BYTES):
            yield tuple(group)
            group, size = [], 0
        group.append(record)
        size += weight
    if group:
        yield tuple(group)
