"""The id by which a request is found in answers and in the log."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Final

import attrs

REQUEST_ID: Final = "X-Request-Id"
_DIGITS: Final = 16
_AT_A_TIME: Final = 256
_TAKEN_OVER: Final = re.compile(r"[A-Za-z0-9._:/+=@~-]{1,128}")
"""Nothing that has a meaning in a log, a shell or a page."""


def _draw() -> Iterator[str]:
    """Yield random numbers, many of them drawn at a time: each by itself would take longer than all else about an id."""
    while True:
        digits = secrets.token_hex(_AT_A_TIME * _DIGITS // 2)
        for start in range(0, len(digits), _DIGITS):
            yield digits[start : start + _DIGITS]


@attrs.define(eq=False)
class RequestIds:
    """Gives ids that no other request has, whichever process answers it: what comes before the dash names that.

    They are drawn and not counted, or every caller could see how much all the others ask.
    """

    _process: str = attrs.field(factory=lambda: secrets.token_hex(6))
    _drawn: Iterator[str] = attrs.field(factory=_draw)

    def take(self, given: str | None) -> str:
        """Return the id that the caller gave, if that can be written anywhere; else one of ours."""
        if given is not None and _TAKEN_OVER.fullmatch(given):
            return given
        return f"{self._process}-{next(self._drawn)}"
