"""Values as Postgres keeps them: moments in whole milliseconds, JSON as its text, any text as one that can be stored."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import Any, Final

from sessions_core.domain.channel import Channel, encode_json
from sessions_core.domain.session import to_milliseconds

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)
LARGEST: Final = 2**63 - 1
KEY_BYTES: Final = 16
_ESCAPE: Final = "\\x"
NO_NAME: Final = ""
BUSY_CHANNELS: Final = 4096
"""About how many channels may be in use at once without their keys being worked out again and again."""


def to_ms(moment: datetime) -> int:
    """Return *moment* in Unix milliseconds, cut."""
    return (moment - EPOCH) // MILLISECOND


def maybe_moment(moment: datetime | None) -> datetime | None:
    """Return *moment* cut to milliseconds, or None."""
    return None if moment is None else to_milliseconds(moment)


def maybe_json(value: Any) -> str | None:
    """Return *value* as JSON text; None stays None."""
    return None if value is None else encode_json(value)


def maybe_value(text: str | None) -> Any:
    """Return what the JSON *text* says; None stays None."""
    return None if text is None else json.loads(text)


def storable_number(number: int) -> int:
    """Return the nearest whole number from 0 on that Postgres can store."""
    return max(0, min(number, LARGEST))


def bindable(text: str) -> str | None:
    """Return *text*, or None if Postgres cannot keep such a text: then no stored one equals it, as none equals null."""
    return text if "\x00" not in text and _is_utf8(text) else None


def storable(text: str) -> str:
    """Return *text* in a form that Postgres takes.

    It takes neither U+0000 nor lone surrogates. A text with one of these, and one that could be mistaken for it, becomes
    the hexadecimal form of its bytes; every other text stays as it is. Different texts stay different.
    """
    if "\x00" not in text and not text.startswith(_ESCAPE) and _is_utf8(text):
        return text
    return _ESCAPE + encode_text(text).hex()


def restored(text: str) -> str:
    """Return the text that was made storable."""
    if not text.startswith(_ESCAPE):
        return text
    return bytes.fromhex(text.removeprefix(_ESCAPE)).decode("utf-8", "surrogatepass")


def name_column(name: str | None) -> str:
    """Return the name of a channel as its column holds it; the empty name is not no name."""
    return NO_NAME if name is None else storable(name) or _ESCAPE


def name_of(column: str) -> str | None:
    """Return the name that :func:`name_column` was given."""
    return None if column == NO_NAME else restored(column)


def encode_text(text: str) -> bytes:
    """Return the bytes of any text."""
    return text.encode("utf-8", "surrogatepass")


def hash_of(text: str) -> str:
    """Return the SHA-256 of any text."""
    return sha256(encode_text(text)).hexdigest()


def key_of(*parts: str | None) -> bytes:
    """Return a short key for *parts*, different for different parts."""
    named = (b"-" if part is None else b"%d:%b" % (len(data := encode_text(part)), data) for part in parts)
    return blake2b(b"".join(named), digest_size=KEY_BYTES).digest()


@lru_cache(maxsize=BUSY_CHANNELS)
def channel_key(channel: Channel) -> bytes:
    """Return the key of a channel's rows.

    It follows from the address alone: no process has to look it up or remember it, and after a restore from a backup no
    key can have come to mean another channel.
    """
    return key_of(channel.environment_id, channel.key, channel.io.value, channel.name)


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
