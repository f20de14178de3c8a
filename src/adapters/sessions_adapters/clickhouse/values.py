"""Values as ClickHouse keeps them: times as whole milliseconds between 1900 and 2300, text as UTF-8."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FIRST: Final = datetime(1900, 1, 1, tzinfo=UTC)
LAST: Final = datetime(2299, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def to_ms(moment: datetime) -> int:
    """Return *moment* in Unix milliseconds, cut; one that ClickHouse cannot express as the nearest that it can."""
    return (min(max(moment, FIRST), LAST) - EPOCH) // MILLISECOND


def to_ms_up(moment: datetime) -> int:
    """Return *moment* in Unix milliseconds, rounded up: for a stored ``t``, ``t < this`` means ``t < moment``."""
    return -((EPOCH - min(max(moment, FIRST), LAST)) // MILLISECOND)


def from_ms(value: int) -> datetime:
    """Return the moment of Unix milliseconds."""
    return EPOCH + value * MILLISECOND


def to_text(moment: datetime) -> str:
    """Return *moment* as text that ClickHouse cannot take for anything else (a number might be seconds)."""
    nearest = min(max(moment, FIRST), LAST).astimezone(UTC)
    return nearest.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")


def sendable(text: str) -> str:
    """Return *text* in a form that can be sent.

    A caller's text may hold lone surrogates, which UTF-8 cannot express. With U+0000 in their places it differs from
    every stored text just the same, because none has that.
    """
    return text if text.isascii() else _SURROGATE.sub("\x00", text)
