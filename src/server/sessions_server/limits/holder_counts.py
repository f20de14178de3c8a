"""How much each holder has of something that is limited: this process, an environment, a session, a token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import attrs

Holder = tuple[str, ...]
"""Whom something is counted for: the kind of limit, such as ``session``, and which one of that kind."""
PROCESS: Final = "process"
ENVIRONMENT: Final = "environment"
PAGE: Final = "page"
SESSION: Final = "session"
TOKEN: Final = "token"  # noqa: S105 - a kind of limit


@attrs.define(eq=False)
class HolderCounts:
    """Counts, and keeps nothing of who has none.

    Attributes:
        most: How much a holder of each kind may have; 0 is no limit.
        refusal: Makes the error of a kind that would have more than its most.
    """

    _most: Mapping[str, int]
    _refusal: Callable[[str, int], Exception]
    _counts: dict[Holder, int] = attrs.field(init=False, factory=dict)

    def __len__(self) -> int:
        """Return how many holders have something."""
        return len(self._counts)

    def get(self, holder: Holder) -> int:
        """Return how much *holder* has; 0 if it has no limit."""
        return self._counts.get(holder, 0)

    def limited(self, holders: Iterable[Holder]) -> tuple[Holder, ...]:
        """Return those that have a limit."""
        return tuple(holder for holder in holders if self._most[holder[0]])

    def add(self, holders: tuple[Holder, ...], size: int = 1) -> None:
        """Count *size* more for each of *holders*, or for none. Raises what the refusal makes if one would have too much."""
        for holder in holders:
            if self._counts.get(holder, 0) + size > (most := self._most[holder[0]]):
                raise self._refusal(holder[0], most)
        for holder in holders:
            self._counts[holder] = self._counts.get(holder, 0) + size

    def remove(self, holders: tuple[Holder, ...], size: int = 1) -> None:
        """Count *size* less for each of *holders*."""
        for holder in holders:
            left = self._counts[holder] - size
            if left:
                self._counts[holder] = left
            else:
                del self._counts[holder]
