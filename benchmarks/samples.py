"""What one measurement yields."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import attrs


@attrs.frozen(kw_only=True)
class Samples:
    """Latencies of requests that were sent in one go.

    Attributes:
        latencies: Seconds each.
        seconds: From the first of these requests to the last answer.
        sent: How many requests each connection has sent and got answered, warm-up included.
        busy: The client's share of a processor; near 1 the client is what was measured.
    """

    latencies: Sequence[float]
    seconds: float
    sent: Sequence[int]
    busy: float

    @property
    def p50(self) -> float:
        """The median in milliseconds."""
        return statistics.median(self.latencies) * 1000

    @property
    def p99(self) -> float:
        """The 99th percentile in milliseconds."""
        return self.percentile(99)

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: int) -> float:
        """Return the least latency, in milliseconds, that *percent* of 100 do not exceed."""
        return sorted(self.latencies)[math.ceil(len(self.latencies) * percent / 100) - 1] * 1000

    def part(self, start: int, step: int) -> Samples:
        """Return every *step*-th latency from *start* on."""
        return attrs.evolve(self, latencies=self.latencies[start::step])
