"""The frames in which messages come, and the one that we send."""

from __future__ import annotations

import struct
from datetime import datetime, timedelta
from typing import Final

from sessions_adapters.postgres.replication.messages import Frame, Keepalive, LogData
from sessions_adapters.postgres.replication.reader import EPOCH, MalformedMessageError, Reader

_DATA: Final = ord("w")
_KEEPALIVE: Final = ord("k")
_ORIGIN: Final = struct.Struct("!QQq")
"""Where in the log a message comes from, how far the server had come, and when. Nobody needs it, and there are many."""
_STATUS: Final = struct.Struct("!cQQQqb")
_MICROSECOND: Final = timedelta(microseconds=1)


def decode_frame(frame: bytes) -> Frame:
    """Return what *frame* holds.

    Raises:
        MalformedMessageError: It is not a frame of the replication protocol.
    """
    reader = Reader(frame)
    kind = reader.byte()
    if kind == _DATA:
        reader.skip(_ORIGIN.size)
        return LogData(reader.rest())
    if kind == _KEEPALIVE:
        keepalive = Keepalive(reader.position(), reader.moment(), reader.flag())
        reader.finish()
        return keepalive
    raise MalformedMessageError(f"unknown frame {bytes((kind,))!r}")


def encode_status(position: int, now: datetime) -> bytes:
    """Return the frame that says: all before *position* is safe, and need not come again."""
    return _STATUS.pack(b"r", position, position, position, (now - EPOCH) // _MICROSECOND, 0)
