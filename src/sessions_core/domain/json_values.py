"""Rules for JSON values that are stored in rows (not for record text, which may contain anything)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sessions_core.errors import InvalidError

MAX_DEPTH: Final = 64


def check_json(value: Any, *, field: str, depth: int = 0) -> None:
    """Refuse what not every store can keep: U+0000 in a string, lone surrogates, and nesting past 64 levels.

    Raises:
        InvalidError: Names the path of the wrong value.
    """
    if depth > MAX_DEPTH:
        raise InvalidError(field, f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        _check_text(value, field)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _check_text(name, f"{field} (a member's name)")
            check_json(item, field=f"{field}.{name}", depth=depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_json(item, field=f"{field}[{index}]", depth=depth + 1)


def _check_text(text: str, field: str) -> None:
    if "\x00" in text:
        raise InvalidError(field, "must not contain U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidError(field, "must not contain a lone surrogate") from None
