"""Values as SQLite keeps them: times as Unix milliseconds, JSON as text, any text as something that can be bound."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sessions_core.domain.channel import encode_json

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)


def to_ms(moment: datetime) -> int:
    """Return *moment* in Unix milliseconds, cut."""
    return (moment - EPOCH) // MILLISECOND


def to_ms_up(moment: datetime) -> int:
    """Return *moment* in Unix milliseconds, rounded up: for a stored ``t``, ``t < this`` means ``t < moment``."""
    return -((EPOCH - moment) // MILLISECOND)


def from_ms(value: int) -> datetime:
    """Return the moment of Unix milliseconds."""
    return EPOCH + value * MILLISECOND


def maybe_ms(moment: datetime | None) -> int | None:
    """Return *moment* in Unix milliseconds, cut, or None."""
    return None if moment is None else to_ms(moment)


def maybe_moment(value: int | None) -> datetime | None:
    """Return the moment of Unix milliseconds, or None."""
    return None if value is None else from_ms(value)


def maybe_json(value: Any) -> str | None:
    """Return *value* as JSON text; None stays None."""
    return None if value is None else encode_json(value)


def maybe_value(text: str | None) -> Any:
    """Return what the JSON *text* says; None stays None."""
    return None if text is None else json.loads(text)


def json_list(values: Collection[str]) -> str:
    """Return *values* for ``json_each``."""
    return encode_json(list(values))


def bindable(text: str) -> str | bytes:
    """Return *text* in a form that SQLite takes.

    A caller's text may hold lone surrogates, which UTF-8 cannot express. Such a text is bound as a blob: it differs
    from every stored text, and equals itself.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def unbound(value: str | bytes) -> str:
    """Return the text that was made bindable."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogatepass")
