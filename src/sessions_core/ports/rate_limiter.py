"""Port: how often somebody may ask."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

from sessions_core.domain.rate import Bucket, Taken


class RateLimiter(Protocol):
    """Counts requests in token buckets.

    Of one bucket no more than its burst and *t* times its rate is given out in any time *t*, however many ask at once, in
    however many processes share the limiter. A bucket exists from its first use on, full; it is forgotten when it is full
    again, so nothing is kept of what nobody uses. Time is the limiter's own: the injected clock in memory, the system's clock
    where processes share one.

    A server uses it through :class:`~sessions_core.services.tolerant_limiter.TolerantRateLimiter`: one that fails lets
    through. An adapter just says that it failed.

    Raises:
        UnavailableError: No answer in time. Permits may have been taken.
    """

    __slots__ = ()

    @abstractmethod
    async def take(self, buckets: Sequence[Bucket]) -> Taken:
        """Take a permit from each of *buckets*, or from none if one of them is empty. Atomic.

        Args:
            buckets: At least one; all of the same environment.
        """
