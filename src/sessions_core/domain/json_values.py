"""Rules for JSON values that are stored in rows (not for record text, which may contain anything)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from sessions_core.errors import InvalidError

MAX_DEPTH: Final = 64


def check_json(value: Any, *, field: str, depth: int = 0) -> None:
    """Refuse what is not JSON, and what not every store can keep: U+0000, lone surrogates, nesting past 64 levels.

    Raises:
        InvalidError: Names the path of the wrong value.
    """
    if depth > MAX_DEPTH:
        raise InvalidError(field, f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        check_text(value, field=field)
    elif (members := as_object(value)) is not None:
        for name, item in members.items():
            check_text(name, field=f"{field} (a member's name)")
            check_json(item, field=f"{field}.{name}", depth=depth + 1)
    elif (items := as_list(value)) is not None:
        for index, item in enumerate(items):
            check_json(item, field=f"{field}[{index}]", depth=depth + 1)
    elif not (value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))):
        raise InvalidError(field, "is not JSON")


def as_object(value: object) -> Mapping[str, Any] | None:
    """Return *value* if it is a JSON object, else None."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else None


def as_list(value: object) -> Sequence[Any] | None:
    """Return *value* if it is a JSON array, else None."""
    return cast("Sequence[Any]", value) if isinstance(value, list | tuple) else None


def check_text(text: object, *, field: str) -> None:
    """Refuse what is no text, and text that not every store can keep: with U+0000 or lone surrogates.

    Raises:
        InvalidError: It is one of these.
    """
    if not isinstance(text, str):
        raise InvalidError(field, "must be a string")
    if "\x00" in text:
        raise InvalidError(field, "must not contain U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidError(field, "must not contain a lone surrogate") from None
