"""Values of columns, from the text in which Postgres sends them to what the driver of all other queries returns.

The connection asks for times in UTC and in ISO form, and for bytes in hexadecimal form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

INFINITIES: Final = {
    "infinity": datetime.max.replace(tzinfo=UTC),
    "-infinity": datetime.min.replace(tzinfo=UTC),
}
_BYTES: Final = "\\x"
_ITEM: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}"\\]+)', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_BOOLEANS: Final = {"t": True, "f": False}


class UnreadableValueError(ValueError):
    """A text that does not stand for a value of its column's type, or for one that Python has no value for."""


def parse(text: str, type_number: int) -> Any:
    """Return the value that *text* stands for; a type that is not known here stays text, as JSON does.

    Raises:
        UnreadableValueError: There is none.
    """
    parser = PARSERS.get(type_number)
    return text if parser is None else parser(text)


def parse_boolean(text: str) -> bool:
    """Return the truth value."""
    if (value := _BOOLEANS.get(text)) is None:
        raise UnreadableValueError("not a truth value")
    return value


def parse_integer(text: str) -> int:
    """Return the whole number."""
    try:
        return int(text)
    except ValueError as exc:
        raise UnreadableValueError("not a whole number") from exc


def parse_bytes(text: str) -> bytes:
    """Return the bytes."""
    if not text.startswith(_BYTES):
        raise UnreadableValueError("not bytes in hexadecimal form")
    try:
        return bytes.fromhex(text.removeprefix(_BYTES))
    except ValueError as exc:
        raise UnreadableValueError("not bytes in hexadecimal form") from exc


def parse_moment(text: str) -> datetime:
    """Return the moment; the infinities are the first and the last that Python knows."""
    try:
        return INFINITIES.get(text) or datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise UnreadableValueError("not a moment of the years 1 to 9999") from exc


def parse_texts(text: str) -> list[str | None]:
    """Return the items of an array with one dimension."""
    if text == "{}":
        return []
    if not (text.startswith("{") and text.endswith("}")):
        raise UnreadableValueError("not an array with one dimension")
    return list(_items(text[1:-1]))


def _items(text: str) -> Iterator[str | None]:
    place = 0
    while True:
        found = _ITEM.match(text, place)
        if found is None:
            raise UnreadableValueError("not an array with one dimension")
        quoted, bare = found.groups()
        if quoted is not None:
            yield _ESCAPED.sub(r"\1", quoted)
        else:
            yield None if bare == "NULL" else bare
        place = found.end()
        if place == len(text):
            return
        if text[place] != ",":
            raise UnreadableValueError("not an array with one dimension")
        place += 1


PARSERS: Final[dict[int, Callable[[str], Any]]] = {
    16: parse_boolean,
    17: parse_bytes,
    20: parse_integer,
    21: parse_integer,
    23: parse_integer,
    1009: parse_texts,
    1184: parse_moment,
}
"""By the number of the type in ``pg_type``; those of built-in types never change."""
