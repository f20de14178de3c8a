"""Port: how far the change feed is behind, and what that costs the store."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import attrs


@attrs.frozen(kw_only=True)
class FeedMeasure:
    """What the store says about the place from which changes are streamed.

    Attributes:
        lag_bytes: Of its log, from what was last acknowledged to its end.
        retained_bytes: Of its log, which it has to keep because of that; more than the lag.
        problem: Why changes are left out, though the place is there, and how to mend that; None if none are.
    """

    lag_bytes: int
    retained_bytes: int
    problem: str | None = None


class FeedGauge(Protocol):
    """Looks at the change feed from outside."""

    __slots__ = ()

    @abstractmethod
    async def measure(self) -> FeedMeasure | None:
        """Return how it is now; None if there is no such place yet.

        Raises:
            StoreUnavailableError: No answer.
        """
