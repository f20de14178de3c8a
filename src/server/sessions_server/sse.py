"""Server-sent events as the clients read them: batches of records, pings that tell the tail, ``[DONE]``.

A batch's frames are encoded once, whoever reads them. A reader that does not keep up fills two small buffers, the
kernel's and ours, and is then waited for; after the time for a slow write it is cut off and comes back where it was.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from time import monotonic, time
from typing import Final, Protocol

import attrs
import msgspec
from aiohttp import web

from sessions_core.domain.channel import Batch, Record
from sessions_server.logs import logger
from sessions_server.problems import describe, is_internal
from sessions_server.wire.values import MAX_NUMBER, parse_digits

DONE: Final = b"data: [DONE]\n\n"
MAX_WINDOW_SECONDS: Final = 600
FRAME_RECORDS: Final = 1000
FRAME_BYTES: Final = 1_048_576
SEND_BUFFER: Final = 65_536
_LARGE_FRAME: Final = 32_768
_RECORD_OVERHEAD: Final = 8
_QUOTE: Final = msgspec.json.Encoder().encode

Write = Callable[[bytes], Awaitable[None]]


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

    async def next(self, timeout: float | None = None) -> Batch | None:
        """Return the next batch, or None if none comes in time."""


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
        text += b',"headers":' + _QUOTE(record.headers)
    if record.body:
        text += b',"body":' + _QUOTE(record.body.decode(errors="replace"))
    return text + b"}"


def encode_ping(next_seq: int, timestamp: int, now_ms: int) -> bytes:
    """Encode a ping."""
    tail = b'{"seq_num":%d,"timestamp":%d}' % (next_seq, timestamp)
    return b'event: ping\ndata: {"timestamp":%d,"tail":%b}\n\n' % (now_ms, tail)


def encode_error(error: Exception) -> bytes:
    """Encode the end of a stream that broke; the reader comes back after its last seq."""
    body = describe(error)
    return b"event: error\ndata: %b\n\n" % _QUOTE({"code": body["code"], "message": body["error"]})


async def pump(reading: Reading, write: Write, pace: Pace) -> None:
    """Write what comes until the reading is finished or its window has passed without a record."""
    now = monotonic()
    deadline = now + pace.window
    ping_at = now if reading.is_caught_up else now + pace.ping
    told_tail = False
    while True:
        if now >= ping_at:
            await write(encode_ping(reading.next_seq, reading.timestamp, int(time() * 1000)))
            ping_at, told_tail = now + pace.ping, True
        batch = await reading.next(max(min(ping_at, deadline) - now, 0.0))
        if batch is not None:
            for frame in batch.encoded(encode_frames):
                await write(frame)
            now = monotonic()
            deadline = now + pace.window
            ping_at = now + pace.ping if told_tail or not reading.is_caught_up else now
            continue
        now = monotonic()
        if reading.finished or now >= deadline:
            return


class SlowReaderError(ConnectionResetError):
    """The reader did not take a frame in time and was cut off."""


@attrs.define(eq=False)
class Sink:
    """Writes frames to one reader, and waits for it only so long."""

    _response: web.StreamResponse
    _transport: asyncio.Transport
    _patience: float

    def __attrs_post_init__(self) -> None:
        raw = self._transport.get_extra_info("socket")
        if raw is not None and raw.family != getattr(socket, "AF_UNIX", None):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    async def write(self, frame: bytes) -> None:
        """Write *frame*.

        Raises:
            SlowReaderError: The reader made no room for it in time.
        """
        if len(frame) < _LARGE_FRAME and self._transport.get_write_buffer_size() == 0:
            await self._response.write(frame)
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._response.write(frame)
        except TimeoutError:
            self._transport.abort()
            raise SlowReaderError("the reader is too slow") from None


async def pump_or_explain(reading: Reading, write: Write, pace: Pace) -> bytes:
    """Pump; return the stream's last frame: ``[DONE]``, or what went wrong."""
    try:
        await pump(reading, write, pace)
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001 - the headers are gone, so it cannot become a status any more
        if is_internal(error):
            logger.exception("subscription failed")
        return encode_error(error)
    return DONE
