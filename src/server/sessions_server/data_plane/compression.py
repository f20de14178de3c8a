"""Compressed frames and bodies. What they say of their size is not believed: decompression stops at the limit."""

from __future__ import annotations

import gzip
import zlib
from enum import IntEnum
from typing import Final

import zstandard

from sessions_server.data_plane.failures import BAD_FRAME, BAD_HEADER, S2Error
from sessions_server.inflating import GZIP, inflate

THRESHOLD: Final = 1024
"""Shorter payloads are sent as they are."""
_LONGEST_WINDOW: Final = 1 << 23


class Compression(IntEnum):
    """As in the two bits of a frame's flags."""

    NONE = 0
    ZSTD = 1
    GZIP = 2


_ENCODINGS: Final = {"identity": Compression.NONE, "zstd": Compression.ZSTD, "gzip": Compression.GZIP}


def accepted(header: str) -> Compression:
    """Return the best way that ``Accept-Encoding`` names."""
    names = {part.partition(";")[0].strip().lower() for part in header.split(",")}
    if "zstd" in names:
        return Compression.ZSTD
    return Compression.GZIP if "gzip" in names else Compression.NONE


def encoding_of(header: str | None) -> Compression:
    """Return the way that ``Content-Encoding`` names.

    Raises:
        S2Error: It is none of ours.
    """
    name = "identity" if header is None else header.strip().lower()
    if name not in _ENCODINGS:
        raise S2Error.of(BAD_HEADER, "content-encoding is zstd or gzip")
    return _ENCODINGS[name]


def compress(payload: bytes, compression: Compression) -> bytes:
    """Compress *payload*."""
    match compression:
        case Compression.ZSTD:
            return zstandard.ZstdCompressor().compress(payload)
        case Compression.GZIP:
            return gzip.compress(payload, compresslevel=6)
        case Compression.NONE:
            return payload


def decompress(payload: bytes, compression: Compression, limit: int, what: str) -> bytes:
    """Decompress *payload*; *what* it is goes into the error.

    Raises:
        S2Error: It is broken, cut short, goes on after its end, or is more than *limit* bytes.
    """
    try:
        match compression:
            case Compression.ZSTD:
                return _from_zstd(payload, limit)
            case Compression.GZIP:
                return inflate(payload, GZIP, limit)
            case Compression.NONE:
                return payload
    except OverflowError:
        raise S2Error.of(BAD_FRAME, f"{what} is too large when decompressed") from None
    except (zlib.error, zstandard.ZstdError, EOFError):
        raise S2Error.of(BAD_FRAME, f"{what} cannot be decompressed") from None


def _from_zstd(payload: bytes, limit: int) -> bytes:
    if zstandard.frame_content_size(payload) > limit:  # it is -1 if the frame does not tell
        raise OverflowError
    inflater = zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW)
    return inflater.decompress(payload, max_output_size=limit, allow_extra_data=False)
