"""Reading the bytes of one message, and nothing beyond them."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_UINT16: Final = struct.Struct("!H")
_INT32: Final = struct.Struct("!i")
_UINT32: Final = struct.Struct("!I")
_UINT64: Final = struct.Struct("!Q")
_INT64: Final = struct.Struct("!q")
_END: Final = b"\x00"


class MalformedMessageError(ValueError):
    """Bytes that are not what the protocol says."""


@attrs.define(eq=False)
class Reader:
    """Reads from the front to the end.

    Raises:
        MalformedMessageError: The bytes end too early, or are not what they should be; from any method.
    """

    data: bytes
    place: int = 0

    def byte(self) -> int:
        """Read a number of one byte."""
        if self.place >= len(self.data):
            raise MalformedMessageError("a message ends too early")
        self.place += 1
        return self.data[self.place - 1]

    def number(self, form: struct.Struct) -> int:
        """Read a number in *form*."""
        end = self.place + form.size
        if end > len(self.data):
            raise MalformedMessageError("a message ends too early")
        (value,) = form.unpack_from(self.data, self.place)
        self.place = end
        return int(value)

    def skip(self, count: int) -> None:
        """Leave out so many bytes."""
        self.place += count
        if self.place > len(self.data):
            raise MalformedMessageError("a message ends too early")

    def int32(self) -> int:
        """Read a number of four bytes."""
        return self.number(_INT32)

    def identifier(self) -> int:
        """Read the number of something in the catalogue, or of a transaction."""
        return self.number(_UINT32)

    def position(self) -> int:
        """Read a position in the log."""
        return self.number(_UINT64)

    def count(self) -> int:
        """Read how many there are, in two bytes."""
        return self.number(_UINT16)

    def long_count(self) -> int:
        """Read how many there are, in four bytes."""
        return self.number(_UINT32)

    def moment(self) -> datetime:
        """Read a moment."""
        microseconds = self.number(_INT64)
        try:
            return EPOCH + timedelta(microseconds=microseconds)
        except OverflowError as exc:
            raise MalformedMessageError(f"{microseconds} µs from 2000 on is out of range") from exc

    def flag(self) -> bool:
        """Read 0 or 1."""
        value = self.byte()
        if value > 1:
            raise MalformedMessageError(f"a flag is {value}")
        return value == 1

    def text(self) -> str:
        """Read a text up to its end mark."""
        end = self.data.find(_END, self.place)
        if end < 0:
            raise MalformedMessageError("a text has no end")
        found, self.place = self.data[self.place : end], end + 1
        try:
            return found.decode()
        except UnicodeDecodeError as exc:
            raise MalformedMessageError("a text is not UTF-8") from exc

    def rest(self) -> bytes:
        """Read all that is left."""
        found, self.place = self.data[self.place :], len(self.data)
        return found

    def finish(self) -> None:
        """Make sure that nothing is left."""
        if self.place != len(self.data):
            raise MalformedMessageError(f"{len(self.data) - self.place} bytes too many")
