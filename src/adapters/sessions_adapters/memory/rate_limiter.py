"""The limiter of one process."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

from sessions_core.domain.rate import Bucket, Buckets, Taken
from sessions_core.ports.clock import Clock
from sessions_core.ports.rate_limiter import RateLimiter

LIMIT: Final = 100_000
"""So many buckets are remembered; beyond that the one used longest ago is full again. Each takes about 400 bytes."""
_START: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@attrs.define(eq=False)
class InMemoryRateLimiter(RateLimiter):
    """Counts what is asked of this process. Never yields: every request comes by here."""

    _clock: Clock
    _buckets: Buckets = attrs.field(init=False, factory=lambda: Buckets(LIMIT))

    async def take(self, buckets: Sequence[Bucket]) -> Taken:
        return self._buckets.take(buckets, (self._clock.now() - _START) // _MICROSECOND)
