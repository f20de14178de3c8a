"""The frames of S2's streaming sessions (``s2s/proto``), without any input or output.

A frame is three bytes of length (big-endian; flags and payload), one byte of flags, and the payload. Flags: ``0x80`` terminal,
``0x60`` compression, ``0x10`` "reconnect soon", the rest reserved. A terminal frame ends a session with an error: two bytes of HTTP
status and a JSON object; only servers send it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from sessions_server.data_plane.compression import THRESHOLD, Compression, compress, decompress
from sessions_server.data_plane.failures import BAD_FRAME, S2Error

MAX_FRAME: Final = 2 * 1024 * 1024
"""Flags and payload together, also after decompression."""
TERMINAL: Final = 0x80
COMPRESSION: Final = 0x60
RESERVED: Final = 0x0F
_COMPRESSION_SHIFT: Final = 5
_LENGTH_BYTES: Final = 3
_HEAD_BYTES: Final = 4


def encode_frame(payload: bytes, compression: Compression = Compression.NONE) -> bytes:
    """Frame *payload*, compressed if it is worth it."""
    if compression is not Compression.NONE and len(payload) >= THRESHOLD:
        return _frame(compression << _COMPRESSION_SHIFT, compress(payload, compression))
    return _frame(0, payload)


def encode_terminal(failure: S2Error) -> bytes:
    """Make the frame that ends a session with an error."""
    return _frame(TERMINAL, failure.status.to_bytes(2, "big") + failure.text)


def _frame(flags: int, payload: bytes) -> bytes:
    length = len(payload) + 1
    if length > MAX_FRAME:
        raise S2Error.of(BAD_FRAME, "A frame is too large")
    return b"%c%c%c%c%b" % (length >> 16, length >> 8 & 0xFF, length & 0xFF, flags, payload)


@attrs.define(eq=False)
class FrameReader:
    """Takes bytes as they come and gives the payloads of whole frames. Holds at most one frame that is not whole.

    Attributes:
        failure: What is wrong with the frame after the last payload that was given; nothing more is taken then.
    """

    failure: S2Error | None = attrs.field(init=False, default=None)
    _buffer: bytearray = attrs.field(init=False, factory=bytearray)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the payloads that *data* completes; go through them to the end before there is more.

        Each is decompressed when its turn comes: a few kilobytes may hold thousands of frames of two megabytes.
        A frame that is too large, empty, terminal, cannot be decompressed, or has flags that mean nothing becomes :attr:`failure`.
        """
        if self.failure is not None:
            return
        self._buffer += data
        start = 0
        try:
            while (end := self._end_of_frame(start)) is not None:
                payload = _payload(self._buffer[start + _LENGTH_BYTES], bytes(self._buffer[start + _HEAD_BYTES : end]))
                start = end
                yield payload
        except S2Error as failure:
            self.failure = failure
            self._buffer.clear()
        else:
            del self._buffer[:start]

    @property
    def held(self) -> int:
        """How many bytes of a frame that is not whole have come; none if no frame has begun."""
        return len(self._buffer)

    def close(self) -> None:
        """Say that nothing more comes. A last frame that is cut short becomes :attr:`failure`."""
        if self._buffer:
            self.failure = S2Error.of(BAD_FRAME, "The last frame is cut short")

    def _end_of_frame(self, start: int) -> int | None:
        """Return where the frame at *start* ends, or None if it is not whole."""
        buffer = self._buffer
        if len(buffer) < start + _LENGTH_BYTES:
            return None
        length = int.from_bytes(buffer[start : start + _LENGTH_BYTES], "big")
        if not 1 <= length <= MAX_FRAME:
            raise S2Error.of(BAD_FRAME, "A frame is too large" if length else "A frame is empty")
        end = start + _LENGTH_BYTES + length
        return end if len(buffer) >= end else None


def _payload(flags: int, payload: bytes) -> bytes:
    if flags & TERMINAL:
        raise S2Error.of(BAD_FRAME, "Clients send no terminal frames")
    if flags & RESERVED:
        raise S2Error.of(BAD_FRAME, "A frame has unknown flags")
    code = (flags & COMPRESSION) >> _COMPRESSION_SHIFT
    try:
        compression = Compression(code)
    except ValueError:
        raise S2Error.of(BAD_FRAME, "A frame is compressed in an unknown way") from None
    return decompress(payload, compression, MAX_FRAME - 1, "A frame")
