"""Text for people and programs: nothing that a record says can steer a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs

# Control characters (C0 without newline and tab, DEL, C1), what turns the direction of writing round, and halves of
# characters, which cannot be encoded.
_UNSAFE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE_BREAKS: Final = re.compile(r"[\n\t]+")


def printable(text: str) -> str:
    r"""Return *text* with everything a terminal might obey written out, as ``\x1b``. Newlines and tabs stay."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Return *text* printable and on one line."""
    return _LINE_BREAKS.sub(" ", printable(text)).strip()


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return *value* as JSON that is readable and, within its strings, as harmless as :func:`printable`.

    Python reads NaN and infinities, which JSON does not have, from other people's JSON; they become null, as in JavaScript.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    except ValueError:
        return to_json(json.loads(json.dumps(value), parse_constant=lambda _: None), indent=indent)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return *rows* as lines whose columns stand one below the other."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


@attrs.frozen
class Style:
    """Emphasis, where there are colours; elsewhere the text as it is."""

    has_colours: bool = False

    def bold(self, text: str) -> str:
        """Mark what matters."""
        return self._mark("1", text)

    def dim(self, text: str) -> str:
        """Mark what only explains."""
        return self._mark("2", text)

    def red(self, text: str) -> str:
        """Mark what went wrong."""
        return self._mark("31", text)

    def _mark(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.has_colours and text else text
