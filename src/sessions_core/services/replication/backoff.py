"""How long to wait before the next attempt."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import attrs

MOST_DOUBLINGS: Final = 30


def doubled(base: timedelta, times: int) -> timedelta:
    """Return *base*, doubled *times* times, within reason."""
    return base * (1 << min(max(times, 0), MOST_DOUBLINGS))


@attrs.frozen(kw_only=True)
class Backoff:
    """Pauses that double from *base* up to *cap*; up to *jitter* comes on top, so that many do not try at once."""

    base: timedelta
    cap: timedelta
    jitter: timedelta = timedelta()

    def pause(self, failures: int, chance: float = 0.0) -> timedelta:
        """Return the pause after so many failures in a row. *chance* says how much of the jitter it has, from 0 to 1."""
        return min(doubled(self.base, failures - 1), self.cap) + self.jitter * chance

    def is_at_cap(self, failures: int) -> bool:
        """Tell whether pauses have stopped growing."""
        return doubled(self.base, failures - 1) >= self.cap
