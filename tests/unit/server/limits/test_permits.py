"""Permits of requests: whose limits count for which, and what is told about them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from multidict import CIMultiDict

from sessions_adapters.memory import InMemoryRateLimiter
from sessions_core.domain.ids import EnvironmentId
from sessions_core.domain.rate import Rate
from sessions_core.services.tolerant_limiter import TolerantRateLimiter
from sessions_core.testing import ManualClock
from sessions_server.limits.permits import Permits
from sessions_server.limits.settings import LimitSettings
from sessions_server.observability.metrics import Metrics
from sessions_server.problems import RateLimitedError
from unit.core.world import Notebook

ONE, OTHER = EnvironmentId("env_one"), EnvironmentId("env_two")
SECOND = timedelta(seconds=1)


def make_permits(clock: ManualClock | None = None, **settings: Any) -> Permits:
    clock = clock or ManualClock()
    limiter = TolerantRateLimiter(InMemoryRateLimiter(clock), Notebook())
    rates = {"environment_rate": Rate(1, 6), "token_rate": Rate(1, 3), **settings}
    return Permits(settings=LimitSettings(**rates), limiter=limiter, clock=clock, metrics=Metrics())


async def count(
    permits: Permits, env: EnvironmentId = ONE, name: str | None = None, *, tries: int = 10, is_vital: bool = False
) -> int:
    """Return how many of *tries* requests get a permit."""
    allowed = 0
    for _ in range(tries):
        try:
            await permits.take(env, name, is_vital=is_vital)
        except RateLimitedError:
            continue
        allowed += 1
    return allowed


async def test_a_flood_with_one_token_leaves_the_rest_to_the_others() -> None:
    permits = make_permits()
    assert await count(permits, name="a", tries=1000) == 3
    assert await count(permits, name="b", tries=2) == 2
    assert await count(permits, tries=1000) == 6 - 3 - 2
    assert await count(permits, OTHER, "a") == 3
    assert await count(permits, OTHER) == 3


async def test_keys_share_the_limit_of_their_environment_alone() -> None:
    permits = make_permits()
    assert await count(permits) == 6
    assert await count(permits, OTHER) == 6


async def test_a_refusal_says_whose_limit_it_is_and_when_to_come_again() -> None:
    clock = ManualClock()
    permits = make_permits(clock)
    await count(permits, name="a")
    with pytest.raises(RateLimitedError) as refused:
        await permits.take(ONE, "a")
    error = refused.value
    assert (error.kind, error.limit, error.wait, error.resets_at) == ("token", 3, SECOND, clock.now() + SECOND)
    await count(permits)
    with pytest.raises(RateLimitedError) as refused:
        await permits.take(ONE, "fresh")
    assert (refused.value.kind, refused.value.limit) == ("environment", 6)
    clock.advance(error.wait)
    assert await count(permits, name="a") == 1


async def test_what_is_vital_is_counted_apart_from_its_environment() -> None:
    permits = make_permits()
    await count(permits)
    await count(permits, name="a")
    assert await count(permits, name="b", is_vital=True) == 3, "its own limit holds"
    assert await count(permits, is_vital=True) == 3, "what tokens have left of it"
    assert await count(permits, name="c", is_vital=True) == 0
    assert await count(permits, OTHER, is_vital=True) == 6


async def test_a_flood_of_what_is_vital_takes_nothing_else() -> None:
    permits = make_permits()
    await count(permits, is_vital=True)
    assert await count(permits) == 6


async def test_a_token_has_one_limit_for_what_is_vital_and_the_rest() -> None:
    permits = make_permits()
    assert await count(permits, name="a", is_vital=True, tries=2) == 2
    assert await count(permits, name="a") == 1


async def test_who_is_refused_what_is_vital_is_told_of_the_environment() -> None:
    permits = make_permits()
    await count(permits, is_vital=True)
    with pytest.raises(RateLimitedError) as refused:
        await permits.take(ONE, None, is_vital=True)
    assert (refused.value.kind, refused.value.limit, refused.value.wait) == ("environment", 6, SECOND)
    assert b'sessions_requests_refused_total{limit="vital"} 5.0' in permits.metrics.render()


async def test_the_headers_are_those_of_the_callers_own_limit() -> None:
    clock = ManualClock()
    permits = make_permits(clock)
    taken = await permits.take(ONE, "a")
    assert taken is not None
    headers: CIMultiDict[str] = CIMultiDict()
    permits.show(taken, headers)
    assert headers == {
        "x-ratelimit-limit": "3",
        "x-ratelimit-remaining": "2",
        "x-ratelimit-reset": str(int((clock.now() + SECOND).timestamp() * 1000)),
    }


@pytest.mark.parametrize("settings", [{"environment_rate": None}, {"token_rate": None}])
async def test_each_limit_can_be_switched_off(settings: dict[str, None]) -> None:
    permits = make_permits(**settings)
    is_environment = "environment_rate" in settings
    assert await count(permits, tries=50) == (50 if is_environment else 6)
    assert await count(permits, OTHER, "a", tries=50) == (3 if is_environment else 6)


async def test_without_limits_nothing_is_told() -> None:
    permits = make_permits(environment_rate=None, token_rate=None)
    assert await permits.take(ONE, "a") is None
