"""A limiter that fails: everybody is let through, and the observer is told."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import attrs

from sessions_adapters.memory import InMemoryRateLimiter
from sessions_core.domain.events import SystemFailed
from sessions_core.domain.ids import EnvironmentId
from sessions_core.domain.rate import Bucket, Rate, Taken
from sessions_core.errors import RateLimiterUnavailableError
from sessions_core.ports.rate_limiter import RateLimiter
from sessions_core.services.tolerant_limiter import TolerantRateLimiter
from unit.core.world import LoopClock, Notebook

BUCKETS = (Bucket(EnvironmentId("env"), "environment", Rate(0.001, 2)),)


@attrs.define
class FailingLimiter(RateLimiter):
    """Gives no answer while it is down, after a while."""

    inner: RateLimiter = attrs.field(factory=lambda: InMemoryRateLimiter(LoopClock()))
    is_down: bool = True
    calls: int = 0

    async def take(self, buckets: Sequence[Bucket]) -> Taken:
        self.calls += 1
        if self.is_down:
            await anyio.sleep(0.5)
            raise RateLimiterUnavailableError
        return await self.inner.take(buckets)


async def test_while_it_answers_its_word_counts() -> None:
    limiter = TolerantRateLimiter(FailingLimiter(is_down=False), Notebook())
    answers = [await limiter.take(BUCKETS) for _ in range(3)]
    assert [answer and answer.is_allowed for answer in answers] == [True, True, False]


async def test_while_it_is_down_everybody_is_let_through_and_only_the_first_waits() -> None:
    failing, observer = FailingLimiter(), Notebook()
    limiter = TolerantRateLimiter(failing, observer)
    start = anyio.current_time()
    assert [await limiter.take(BUCKETS) for _ in range(100)] == [None] * 100
    assert (failing.calls, anyio.current_time() - start) == (1, 0.5)
    [told] = observer.of(SystemFailed)
    assert (told.step, told.error) == ("count request", "The rate limiter is unavailable; try again")


async def test_when_it_is_back_it_counts_again() -> None:
    failing = FailingLimiter()
    limiter = TolerantRateLimiter(failing, Notebook())
    assert await limiter.take(BUCKETS) is None
    failing.is_down = False
    await anyio.sleep(1)
    answers = [await limiter.take(BUCKETS) for _ in range(3)]
    assert [answer and answer.is_allowed for answer in answers] == [True, True, False]
