"""Time and ids from the operating system."""

from __future__ import annotations

import random
import secrets
import time
from datetime import UTC, datetime

import attrs

from sessions_core.domain.ids import ID_ALPHABET, time_ordered_id
from sessions_core.ports.clock import Clock, Ids

_RANDOM_DIGITS = 16
_PART_DIGITS = 10


class SystemClock(Clock):
    """This machine's clock."""

    def now(self) -> datetime:
        """Return the current time with zone UTC."""
        return datetime.now(UTC)


@attrs.define
class RandomIds(Ids):
    """Ids of the current millisecond and 82 random bits from the operating system."""

    _random: random.Random = attrs.field(factory=random.SystemRandom, init=False, repr=False)
    _parts: random.Random = attrs.field(
        factory=lambda: random.Random(secrets.randbits(128)),  # noqa: S311 - unique, not secret
        init=False,
        repr=False,
    )

    def new(self) -> str:
        """Return a fresh id of 25 characters."""
        tail = "".join(self._random.choices(ID_ALPHABET, k=_RANDOM_DIGITS))
        return time_ordered_id(time.time_ns() // 1_000_000, tail)

    def new_part(self) -> str:
        """Return 10 random characters: a record's id has to be unique on its channel, not secret."""
        return "".join(self._parts.choices(ID_ALPHABET, k=_PART_DIGITS))
