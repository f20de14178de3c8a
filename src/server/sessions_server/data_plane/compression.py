"""Compressed frames. What a frame says of its size is not believed: decompression stops at the limit."""

from __future__ import annotations

import gzip
import zlib
from enum import IntEnum
from typing import Final

import zstandard

from sessions_server.data_plane.failures import BAD_FRAME, S2Error

THRESHOLD: Final = 1024
"""Shorter payloads are sent as they are."""
_GZIP_WINDOW: Final = zlib.MAX_WBITS | 16
_LONGEST_WINDOW: Final = 1 << 23


class Compression(IntEnum):
    """As in the two bits of a frame's flags."""

    NONE = 0
    ZSTD = 1
    GZIP = 2


def accepted(header: str) -> Compression:
    """Return the best way that ``Accept-Encoding`` names."""
    names = {part.partition(";")[0].strip().lower() for part in header.split(",")}
    if "zstd" in names:
        return Compression.ZSTD
    return Compression.GZIP if "gzip" in names else Compression.NONE


def compress(payload: bytes, compression: Compression) -> bytes:
    """Compress *payload*."""
    match compression:
        case Compression.ZSTD:
            return zstandard.ZstdCompressor().compress(payload)
        case Compression.GZIP:
            return gzip.compress(payload, compresslevel=6)
        case Compression.NONE:
            return payload


def decompress(payload: bytes, compression: Compression, limit: int) -> bytes:
    """Decompress *payload*.

    Raises:
        S2Error: It is broken, cut short, or more than *limit* bytes.
    """
    if compression is Compression.NONE:
        return payload
    try:
        plain = _from_zstd(payload, limit) if compression is Compression.ZSTD else _from_gzip(payload, limit)
    except (zlib.error, zstandard.ZstdError, EOFError):
        raise S2Error.of(BAD_FRAME, "A frame cannot be decompressed") from None
    if len(plain) > limit:
        raise S2Error.of(BAD_FRAME, "A frame is too large when decompressed")
    return plain


def _from_gzip(payload: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    plain = inflater.decompress(payload, limit + 1)
    if len(plain) <= limit and not inflater.eof:
        raise EOFError
    return plain


def _from_zstd(payload: bytes, limit: int) -> bytes:
    if zstandard.frame_content_size(payload) > limit:  # it is -1 if the frame does not tell
        raise S2Error.of(BAD_FRAME, "A frame is too large when decompressed")
    return zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW).decompress(payload, max_output_size=limit)
