"""Server-sent events as the clients read them: batches of records, pings that tell the tail, ``[DONE]``.

A batch's frames are encoded once, whoever reads them. To a reader that keeps up a new batch is written on the spot, in
the very moment in which the hub has it; the stream's own task sleeps on. A reader that does not keep up fills two small
buffers, the kernel's and ours, and is then waited for; after the time for a slow write it is cut off and comes back
where it was.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from time import monotonic, time
from typing import Final, Protocol

import anyio
import attrs
import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from sessions_core.domain.channel import PUBLIC_ACCESS_TOKEN, Batch, Headers, Record
from sessions_core.services.hub import Push
from sessions_server.observability.logs import logger
from sessions_server.problems import describe, is_internal
from sessions_server.wire.values import MAX_NUMBER, legible, parse_digits

DONE: Final = b"data: [DONE]\n\n"
MAX_WINDOW_SECONDS: Final = 600
FRAME_RECORDS: Final = 1000
FRAME_BYTES: Final = 1_048_576
SEND_BUFFER: Final = 65_536
_LARGE_FRAME: Final = 32_768
_RECORD_OVERHEAD: Final = 8
_QUOTE: Final = msgspec.json.Encoder().encode

Encode = Callable[[Batch], tuple[bytes, ...]]
"""One function per variant, since a batch remembers what each has made of it."""
May = Callable[[], Awaitable[bool]]
"""Tells whether a reader may be shown session tokens now."""


class Reading(Protocol):
    """What a stream needs of a subscription."""

    @property
    def next_seq(self) -> int:
        """The seq of the channel's next record."""

    @property
    def timestamp(self) -> int:
        """Arrival of its last one."""

    @property
    def finished(self) -> bool:
        """Whether nothing more is to come."""

    @property
    def is_caught_up(self) -> bool:
        """Whether everything known has been given out."""

    async def next(self, timeout: float | None = None, push: Push | None = None) -> Batch | None:
        """Return the next batch, or None if none comes in time; offer *push* those that come during the wait."""


class Outlet(Protocol):
    """What a stream is written to."""

    async def write(self, frame: bytes) -> None:
        """Write a frame, waiting for room if need be."""

    def write_at_once(self, frame: bytes) -> bool:
        """Write a frame if that needs no waiting; return whether it was written."""


@attrs.frozen(kw_only=True)
class Pace:
    """The times of a stream, in seconds.

    Attributes:
        window: It ends when no record has come for so long.
        ping: How often a silent one is told the tail.
        slow_write: How long a reader may take to make room for a frame.
    """

    window: float
    ping: float
    slow_write: float


def parse_last_event_id(text: str | None) -> int | None:
    """Read the seq of the last record that the reader has seen; None if it has to start at the beginning.

    Only what stands before the first ``,`` or ``-`` counts, so that ids in the S2 form and other decorations work.
    """
    if text is None:
        return None
    number = text.split(",", 1)[0].split("-", 1)[0].strip()
    if not (number.isascii() and number.isdigit()):
        return None
    digits = number.lstrip("0") or "0"
    return min(int(digits), MAX_NUMBER) if len(digits) <= 16 else MAX_NUMBER


def parse_window(text: str | None, default: float) -> float:
    """Read ``Timeout-Seconds``.

    Raises:
        InvalidError: No whole number from 1 to 600.
    """
    if text is None:
        return default
    return parse_digits(text.strip(), "Timeout-Seconds", 1, MAX_WINDOW_SECONDS)


def encode_frames(batch: Batch) -> tuple[bytes, ...]:
    """Encode a batch: usually as one frame, as several if it is large. Each frame's id is its last seq."""
    return tuple(_encode_frame(group, batch) for group in _groups(batch.records))


def encode_frames_without_tokens(batch: Batch) -> tuple[bytes, ...]:
    """Encode a batch for those who must not see session tokens; the same bytes as for all others if there are none."""
    hidden = without_tokens(batch)
    return batch.encoded(encode_frames) if hidden is batch else encode_frames(hidden)


def has_tokens(batch: Batch) -> bool:
    """Tell whether there are session tokens in the headers of the batch."""
    return any(map(is_with_token, batch.records))


def is_with_token(record: Record) -> bool:
    """Tell whether there is a session token in the headers of the record."""
    return bool(record.headers) and record.header(PUBLIC_ACCESS_TOKEN) is not None


def without_tokens(batch: Batch) -> Batch:
    """Return the batch without the session tokens in its headers; itself if there are none."""
    if not has_tokens(batch):
        return batch
    return Batch(hide_tokens(batch.records), batch.next_seq, batch.timestamp)


def hide_tokens(records: Iterable[Record]) -> tuple[Record, ...]:
    """Return *records* without the session tokens in their headers."""
    return tuple(map(_without_token, records))


def _without_token(record: Record) -> Record:
    kept = tuple(header for header in record.headers if header[0] != PUBLIC_ACCESS_TOKEN)
    return record if len(kept) == len(record.headers) else attrs.evolve(record, headers=kept)


def _groups(records: Iterable[Record]) -> Iterator[list[Record]]:
    group: list[Record] = []
    size = 0
    for record in records:
        weight = len(record.body) + _RECORD_OVERHEAD
        if group and (len(group) >= FRAME_RECORDS or size + weight > FRAME_BYTES):
            yield group
            group, size = [], 0
        group.append(record)
        size += weight
    if group:
        yield group


def _encode_frame(group: list[Record], batch: Batch) -> bytes:
    return b'event: batch\nid: %d\ndata: {"records":[%b],"tail":{"seq_num":%d,"timestamp":%d}}\n\n' % (
        group[-1].seq,
        b",".join(map(_encode_record, group)),
        batch.next_seq,
        batch.timestamp,
    )


def _encode_record(record: Record) -> bytes:
    """Encode one record; empty headers and an empty body are left out."""
    text = b'{"seq_num":%d,"timestamp":%d' % (record.seq, record.timestamp)
    if record.headers:
        text += b',"headers":' + _quote_headers(record.headers)
    if record.body:
        text += b',"body":' + _QUOTE(record.body.decode(errors="replace"))
    return text + b"}"


def _quote_headers(headers: Headers) -> bytes:
    try:
        return _QUOTE(headers)
    except UnicodeEncodeError:
        return _QUOTE([[legible(name), legible(value)] for name, value in headers])


def encode_ping(next_seq: int, timestamp: int, now_ms: int) -> bytes:
    """Encode a ping."""
    tail = b'{"seq_num":%d,"timestamp":%d}' % (next_seq, timestamp)
    return b'event: ping\ndata: {"timestamp":%d,"tail":%b}\n\n' % (now_ms, tail)


def encode_error(error: Exception) -> bytes:
    """Encode the end of a stream that broke; the reader comes back after its last seq."""
    body = describe(error)
    return b"event: error\ndata: %b\n\n" % _QUOTE({"code": body["code"], "message": body["error"]})


@attrs.define
class _Rhythm:
    """When a stream ends unless a record comes, and when it is told the tail."""

    pace: Pace
    ends_at: float
    ping_at: float

    def record_written(self, now: float) -> None:
        self.ends_at = now + self.pace.window
        self.ping_at = now + self.pace.ping

    def silence(self, now: float) -> float:
        """Return how long from *now* on there is nothing to do if no record comes."""
        return max(min(self.ping_at, self.ends_at) - now, 0.0)


async def pump(
    reading: Reading, outlet: Outlet, pace: Pace, encode: Encode = encode_frames, may_see_tokens: May | None = None
) -> None:
    """Write what comes until the reading is finished or its window has passed without a record.

    Args:
        reading: What is read.
        outlet: Where it is written.
        pace: In which time.
        encode: How.
        may_see_tokens: Is asked before each batch with session tokens; if it says no, they are left out.
    """
    now = monotonic()
    rhythm = _Rhythm(pace, now + pace.window, now if reading.is_caught_up else now + pace.ping)
    told_tail = False

    def push(batch: Batch) -> bool:
        if may_see_tokens is not None and batch.encoded(has_tokens):
            return False  # asking takes a while, which the stream's own task has
        is_written = _write_at_once(batch, outlet, encode)
        if is_written:
            rhythm.record_written(monotonic())
        return is_written

    while True:
        if now >= rhythm.ping_at:
            await outlet.write(encode_ping(reading.next_seq, reading.timestamp, int(time() * 1000)))
            rhythm.ping_at, told_tail = now + pace.ping, True
        batch = await reading.next(rhythm.silence(now), push)
        now = monotonic()
        if batch is not None:
            may = may_see_tokens is None or not batch.encoded(has_tokens) or await may_see_tokens()
            for frame in batch.encoded(encode if may else encode_frames_without_tokens):
                await outlet.write(frame)
            now = monotonic()
            rhythm.record_written(now)
            if reading.is_caught_up and not told_tail:
                rhythm.ping_at = now
        elif reading.finished or now >= rhythm.ends_at:
            return


def _write_at_once(batch: Batch, outlet: Outlet, encode: Encode) -> bool:
    try:
        frames = batch.encoded(encode)
    except Exception:  # noqa: BLE001 - the stream's own task will meet it again, and can explain it to its reader
        return False
    return len(frames) == 1 and outlet.write_at_once(frames[0])


class SlowReaderError(ConnectionResetError):
    """The reader did not take a frame in time and was cut off."""


@attrs.define(eq=False)
class Sink:
    """Writes frames to one reader, and waits for it only so long."""

    _response: web.StreamResponse
    _writer: AbstractStreamWriter
    _transport: asyncio.Transport
    _patience: float
    _is_chunked: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        raw = self._transport.get_extra_info("socket")
        if raw is not None and raw.family != getattr(socket, "AF_UNIX", None):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._is_chunked = self._response.headers.get("Transfer-Encoding") == "chunked"  # HTTP/1.0 has no chunks

    async def write(self, frame: bytes) -> None:
        """Write *frame*.

        Raises:
            SlowReaderError: The reader made no room for it in time.
        """
        if self._is_chunked and len(frame) < _LARGE_FRAME and self._transport.get_write_buffer_size() == 0:
            await self._response.write(frame)
            return
        try:
            # Whole frames only, also when the stream is to end in the middle of one: over HTTP/2 it goes out in pieces.
            with anyio.CancelScope(shield=True):
                async with asyncio.timeout(self._patience):
                    await self._response.write(frame)
        except TimeoutError:
            self._transport.abort()
            raise SlowReaderError("the reader is too slow") from None

    def write_at_once(self, frame: bytes) -> bool:
        """Write *frame* unless something else waits to be written; return whether it was written.

        Goes past the response to the transport: the response would do nothing but put the chunk's length before it.
        """
        transport = self._transport
        is_ready = self._is_chunked and not transport.is_closing() and transport.get_write_buffer_size() == 0
        if not is_ready or len(frame) >= _LARGE_FRAME:
            return False
        chunk = b"%x\r\n%b\r\n" % (len(frame), frame)
        transport.write(chunk)
        self._writer.output_size += len(chunk)  # by which the connection sees whether its client takes anything
        return True


async def pump_or_explain(
    reading: Reading, outlet: Outlet, pace: Pace, encode: Encode = encode_frames, may_see_tokens: May | None = None
) -> bytes:
    """Pump; return the stream's last frame: ``[DONE]``, or what went wrong."""
    try:
        await pump(reading, outlet, pace, encode, may_see_tokens)
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001 - the headers are gone, so it cannot become a status any more
        if is_internal(error):
            logger.exception("subscription failed")
        return encode_error(error)
    return DONE
