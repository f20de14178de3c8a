"""Reading and writing the values that bodies, headers and queries share."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from sessions_core.domain.channel import DEEPEST
from sessions_core.errors import InvalidError
from sessions_server.problems import UnreadableBodyError

S = TypeVar("S")

MAX_NAME: Final = 256
"""Characters of an id in a path or body."""
MAX_NUMBER: Final = 2**53 - 1
"""What JavaScript can count to."""
_LOCATED: Final = re.compile(r"(?P<what>.*?) - at `\$\.?(?P<path>[^`]*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `([^`]+)`")
_BRACKET: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{\]}]', re.DOTALL)
"""A text, which is passed over as a whole, or a bracket outside of one. A text without an end ends the search: nothing is read twice."""
_STEPS: Final = {"[": 1, "{": 1, "]": -1, "}": -1}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all bodies. Unknown members are ignored."""


def decode_body(raw: bytes, decoder: msgspec.json.Decoder[S]) -> S:
    """Read a JSON body; an empty one is ``{}``.

    Raises:
        UnreadableBodyError: No UTF-8 or no JSON.
        InvalidError: Names the path of the wrong or missing member.
    """
    try:
        text = raw.decode() if raw else "{}"
        if is_deeper(text, DEEPEST):
            raise UnreadableBodyError(reason=f"is nested deeper than {DEEPEST} levels")
        return decoder.decode(text)
    except UnicodeDecodeError:
        raise UnreadableBodyError(reason="is not valid UTF-8") from None
    except msgspec.ValidationError as error:
        raise _located(str(error)) from None
    except msgspec.DecodeError:
        raise UnreadableBodyError from None


def is_deeper(text: str, most: int) -> bool:
    """Tell whether *text*, if it is JSON, is nested deeper than *most* levels. What is not so deep can be written again."""
    if text.count("[") + text.count("{") <= most:
        return False
    depth = 0
    for found in _BRACKET.finditer(text):
        depth += _STEPS.get(found[0], 0)
        if depth > most:
            return True
    return False


def _located(text: str) -> InvalidError:
    """Turn msgspec's sentence into a field and a reason."""
    match = _LOCATED.fullmatch(text)
    what, path = (match["what"], match["path"]) if match else (text, "")
    missing = _MISSING.fullmatch(what)
    if missing is not None:
        return InvalidError(f"{path}.{missing[1]}" if path else missing[1], "is required")
    return InvalidError(path or "body", f"is wrong: {what[:1].lower()}{what[1:]}")


def check_text(text: str, name: str, longest: int, *, least: int = 1) -> str:
    """Return *text* if it can be stored.

    Raises:
        InvalidError: Too short, too long, with U+0000, or (from a header) no UTF-8.
    """
    if not text.isascii():
        _check_encodable(text, name)
    if not least <= len(text) <= longest:
        raise InvalidError(name, f"must have {least} to {longest} characters")
    if "\x00" in text:
        raise InvalidError(name, "must not contain U+0000")
    return text


def _check_encodable(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidError(name, "is not valid UTF-8") from None


def parse_digits(text: str, name: str, least: int, most: int) -> int:
    """Read a whole number of ASCII digits.

    Raises:
        InvalidError: Anything else, or out of range.
    """
    if text.isascii() and text.isdigit() and len(text) <= 16 and least <= int(text) <= most:
        return int(text)
    raise InvalidError(name, f"must be a whole number from {least} to {most}")


def parse_whole(number: float, name: str) -> int:
    """Return *number*, as JSON writes it, as an integer.

    Raises:
        InvalidError: It has a fraction or is too large for JavaScript.
    """
    if abs(number) > MAX_NUMBER or number != int(number):
        raise InvalidError(name, "must be a whole number")
    return int(number)


def parse_moment(value: str | float, *, name: str) -> datetime:
    """Read a time as ISO 8601 text (without a zone: UTC) or Unix milliseconds.

    Raises:
        InvalidError: Neither, or out of range.
    """
    try:
        if not isinstance(value, str):
            return _EPOCH + timedelta(milliseconds=value)
        moment = datetime.fromisoformat(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidError(name, "must be a date: ISO 8601 text or Unix milliseconds") from None


def iso(moment: datetime) -> str:
    """Write a time as the clients read it: UTC, milliseconds, ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def maybe_iso(moment: datetime | None) -> str | None:
    """Write a time that may be missing."""
    return None if moment is None else iso(moment)


def legible(text: str) -> str:
    """Replace what UTF-8 cannot say: lone surrogates, which a stranger may have put into the headers of a record."""
    return text.encode(errors="replace").decode()


def or_none(value: Any) -> Any:
    """Return *value*, or None if it was left out."""
    return None if value is msgspec.UNSET else value
