"""Unpacking what zlib packs. How much is in it is not believed: unpacking stops at the limit."""

from __future__ import annotations

import zlib
from typing import Final

GZIP: Final = zlib.MAX_WBITS | 16
ZLIB: Final = zlib.MAX_WBITS
DEFLATE: Final = -zlib.MAX_WBITS
"""As zlib's, but without its head."""


def inflate(packed: bytes, window: int, limit: int) -> bytes:
    """Unpack *packed*, which is of one of the forms above.

    Raises:
        OverflowError: It is more than *limit* bytes.
        EOFError: It is cut short.
        zlib.error: It is broken, or goes on after its end.
    """
    inflater = zlib.decompressobj(window)
    plain = inflater.decompress(packed, limit + 1)
    if len(plain) > limit:
        raise OverflowError
    if not inflater.eof:
        raise EOFError
    if inflater.unused_data:
        raise zlib.error("goes on after its end")
    return plain
