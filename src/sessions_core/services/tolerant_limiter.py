"""A limiter of requests that lets through what it cannot count.

Limits protect a server from its callers. A limiter that is down must not do what they are there to prevent, so nobody is
refused because of it, and nobody waits for it twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from sessions_core.domain.rate import Bucket, Taken
from sessions_core.ports.observer import Observer
from sessions_core.ports.rate_limiter import RateLimiter
from sessions_core.services.tolerance import Tolerance


@attrs.define(eq=False)
class TolerantRateLimiter:
    """Asks *inner* while it can be reached."""

    inner: RateLimiter
    observer: Observer
    _tolerance: Tolerance = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._tolerance = Tolerance(self.observer)

    async def take(self, buckets: Sequence[Bucket]) -> Taken | None:
        """Take a permit from each of *buckets*, or from none; None if nobody can tell, which is a yes."""
        return await self._tolerance.attempt("count request", None, self.inner.take, buckets)
