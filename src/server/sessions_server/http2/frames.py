"""From bytes to frames. Looks at nothing but their heads; what they mean is for ``h2`` to know.

``h2`` buffers a frame whole before it looks at its length, and a header block of 64 frames before it looks at its size; so
both are held against the limits here, as the bytes come.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

import attrs
from h2.errors import ErrorCodes

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD: Final = 9
MAX_STREAM_ID: Final = 0x7FFF_FFFF
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
_MAX_SETTINGS: Final = 32 * 6
EMPTY_SETTINGS: Final = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


class Kind(IntEnum):
    """The types of frames that are told apart here."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


@attrs.define(eq=False)
class ViolationError(Exception):
    """The peer breaks a rule, or costs too much; the connection ends with *code*.

    Attributes:
        reason: For the peer's developer, who finds it in GOAWAY.
    """

    code: ErrorCodes
    reason: str


class Frame(NamedTuple):
    """One frame as it came, its head included."""

    kind: int
    flags: int
    stream_id: int
    raw: bytes

    @property
    def is_empty(self) -> bool:
        """Whether it carries nothing but perhaps padding."""
        length = len(self.raw) - HEAD
        return length == 0 or bool(self.flags & PADDED and length <= self.raw[HEAD] + 1)

    @property
    def goaway_code(self) -> int:
        """The error code of a GOAWAY frame."""
        return int.from_bytes(self.raw[HEAD + 4 : HEAD + 8])


def goaway(last_stream_id: int, code: ErrorCodes, reason: str = "") -> bytes:
    """Return a GOAWAY frame. One of ``h2`` would be the last word of that connection; ours may be followed by answers."""
    payload = last_stream_id.to_bytes(4) + int(code).to_bytes(4) + reason.encode()
    return len(payload).to_bytes(3) + bytes((Kind.GOAWAY, 0, 0, 0, 0, 0)) + payload


@attrs.define(eq=False)
class FrameReader:
    """Cuts what comes after the preface into frames.

    Attributes:
        is_greeted: Whether the first frame, the peer's settings, has come.
    """

    max_frame: int
    max_block: int
    is_greeted: bool = attrs.field(init=False, default=False)
    _buffer: bytes = attrs.field(init=False, default=b"")
    _at: int = attrs.field(init=False, default=0)
    _is_in_block: bool = attrs.field(init=False, default=False)
    _block: int = attrs.field(init=False, default=0)

    @property
    def is_in_headers(self) -> bool:
        """Whether a header block has begun and not ended."""
        rest = self._buffer[self._at : self._at + HEAD]
        return self._is_in_block or (len(rest) > 3 and rest[3] in (Kind.HEADERS, Kind.CONTINUATION))

    def feed(self, data: bytes) -> None:
        """Add bytes, and forget those that have been read."""
        rest = self._buffer[self._at :]
        self._buffer, self._at = (rest + data if rest else data), 0

    def next(self) -> Frame | None:
        """Return the next frame, or None if it is not whole yet.

        Raises:
            ViolationError: It is too long, or comes where it must not.
        """
        buffer, at = self._buffer, self._at
        if len(buffer) - at < HEAD:
            self.feed(b"")
            return None
        length, kind, flags = int.from_bytes(buffer[at : at + 3]), buffer[at + 3], buffer[at + 4]
        self._check(length, kind)
        end = at + HEAD + length
        if len(buffer) < end:
            return None
        self._at = end
        self.is_greeted = True
        if kind in (Kind.HEADERS, Kind.CONTINUATION):
            self._count_block(length, kind, is_end=bool(flags & END_HEADERS))
        stream_id = int.from_bytes(buffer[at + 5 : at + HEAD]) & MAX_STREAM_ID
        return Frame(kind, flags, stream_id, buffer[at:end])

    def _check(self, length: int, kind: int) -> None:
        if length > self.max_frame:
            raise ViolationError(ErrorCodes.FRAME_SIZE_ERROR, "frame too long")
        if not self.is_greeted and kind != Kind.SETTINGS:
            raise ViolationError(ErrorCodes.PROTOCOL_ERROR, "settings come first")
        if kind == Kind.SETTINGS and length > _MAX_SETTINGS:
            raise ViolationError(ErrorCodes.ENHANCE_YOUR_CALM, "too many settings")
        if kind == Kind.GOAWAY and length < 8:
            raise ViolationError(ErrorCodes.FRAME_SIZE_ERROR, "GOAWAY too short")
        if self._is_in_block and kind != Kind.CONTINUATION:
            raise ViolationError(ErrorCodes.PROTOCOL_ERROR, "header block interrupted")

    def _count_block(self, length: int, kind: int, *, is_end: bool) -> None:
        """Follow a header block. h2 says so itself when a CONTINUATION continues nothing."""
        self._block = length if kind == Kind.HEADERS else self._block + length
        if self._block > self.max_block:
            raise ViolationError(ErrorCodes.ENHANCE_YOUR_CALM, "header block too long")
        self._is_in_block = not is_end
