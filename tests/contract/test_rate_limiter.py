"""What every limiter of requests guarantees.

Where it matters that no time passes, permits come back so slowly that none does during a test, however slow the machine.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from contract.adapters import LimiterTime
from contract.makers import at_once
from sessions_core.domain.ids import EnvironmentId
from sessions_core.domain.rate import Bucket, Rate
from sessions_core.ports.rate_limiter import RateLimiter

SLOW = 0.001
INTERVAL = timedelta(seconds=1000)


def make_bucket(burst: int = 3, per_second: float = SLOW, name: str = "environment", env: str = "env_a") -> Bucket:
    return Bucket(EnvironmentId(env), name, Rate(per_second, burst))


async def count_allowed(limiter: RateLimiter, *buckets: Bucket, tries: int) -> int:
    """Return how many of *tries* get a permit, one after the other."""
    return sum([(await limiter.take(buckets)).is_allowed for _ in range(tries)])


async def test_a_burst_goes_through_at_once_and_no_more(rate_limiter: RateLimiter) -> None:
    taken = [await rate_limiter.take((make_bucket(burst=3),)) for _ in range(5)]
    assert [each.is_allowed for each in taken] == [True, True, True, False, False]
    assert [each.remaining for each in taken] == [2, 1, 0, 0, 0]


async def test_of_50_racing_requests_no_more_than_the_burst_get_through(rate_limiter: RateLimiter) -> None:
    taken = await at_once([partial(rate_limiter.take, (make_bucket(burst=20),)) for _ in range(50)])
    assert sum(each.is_allowed for each in taken) == 20


async def test_it_says_when_there_will_be_one_more(rate_limiter: RateLimiter) -> None:
    for _ in range(3):
        taken = await rate_limiter.take((make_bucket(burst=2),))
        assert INTERVAL - timedelta(minutes=5) < taken.wait <= INTERVAL


async def test_after_the_wait_that_it_says_a_request_gets_through(
    rate_limiter: RateLimiter, limiter_time: LimiterTime
) -> None:
    bucket = make_bucket(burst=2, per_second=20)
    allowed = refused = 0
    while refused < 3:
        taken = await rate_limiter.take((bucket,))
        allowed += taken.is_allowed
        if not taken.is_allowed:
            refused += 1
            assert timedelta() < taken.wait <= timedelta(milliseconds=50)
            await limiter_time.let_pass(taken.wait)
            assert (await rate_limiter.take((bucket,))).is_allowed
    assert allowed >= 2


async def test_in_the_long_run_there_are_no_more_than_the_rate_allows(
    rate_limiter: RateLimiter, limiter_time: LimiterTime
) -> None:
    bucket, allowed, start = make_bucket(burst=5, per_second=100), 0, limiter_time.now()
    for _ in range(40):
        allowed += await count_allowed(rate_limiter, bucket, tries=3)
        await limiter_time.let_pass(timedelta(milliseconds=7))
    passed = limiter_time.now() - start
    assert allowed <= 5 + 100 * passed.total_seconds()
    assert allowed >= 28, "and it gives what it has: that is what comes in 280 ms"


async def test_a_bucket_that_rests_fills_to_its_burst_and_no_further(
    rate_limiter: RateLimiter, limiter_time: LimiterTime
) -> None:
    bucket = make_bucket(burst=4, per_second=200)
    await count_allowed(rate_limiter, bucket, tries=4)
    await limiter_time.let_pass(timedelta(milliseconds=100))
    assert (await rate_limiter.take((bucket,))).remaining == 3


async def test_buckets_do_not_share(rate_limiter: RateLimiter) -> None:
    buckets = [
        make_bucket(burst=1),
        make_bucket(burst=1, name="token:a"),
        make_bucket(burst=1, env="env_b"),
        make_bucket(burst=1, name="b:c", env="a"),
        make_bucket(burst=1, name="c", env="a:b"),
        make_bucket(burst=1, name="}:x", env="{a"),
        make_bucket(burst=1, name=":x", env="{a}"),
        make_bucket(burst=1, name="1", env="1"),
        make_bucket(burst=1, name="", env="11"),
    ]
    assert [await count_allowed(rate_limiter, each, tries=2) for each in buckets] == [1] * len(buckets)


async def test_a_request_takes_from_all_its_buckets_or_from_none(rate_limiter: RateLimiter) -> None:
    own, shared = make_bucket(burst=1, name="token:a"), make_bucket(burst=10)
    assert await count_allowed(rate_limiter, own, shared, tries=5) == 1
    assert (await rate_limiter.take((shared,))).remaining == 8, "those that were refused took nothing"
    other = make_bucket(burst=100, name="token:b")
    assert await count_allowed(rate_limiter, other, shared, tries=20) == 8
    assert (await rate_limiter.take((other,))).remaining == 100 - 8 - 1


async def test_it_tells_of_the_bucket_that_refuses_and_else_of_the_first(rate_limiter: RateLimiter) -> None:
    own, shared = make_bucket(burst=5, name="token:a"), make_bucket(burst=2)
    taken = [await rate_limiter.take((own, shared)) for _ in range(3)]
    assert [each.bucket for each in taken] == [own, own, shared]
    assert [each.remaining for each in taken] == [4, 3, 0]


async def test_of_racing_requests_for_two_buckets_none_takes_from_one_alone(rate_limiter: RateLimiter) -> None:
    own, shared = make_bucket(burst=30, name="token:a"), make_bucket(burst=10)
    await at_once([partial(rate_limiter.take, (own, shared)) for _ in range(40)])
    assert (await rate_limiter.take((own,))).remaining == 30 - 10 - 1


async def test_a_limit_that_was_lowered_holds_at_once_and_is_not_paid_off_first(
    rate_limiter: RateLimiter, limiter_time: LimiterTime
) -> None:
    await count_allowed(rate_limiter, make_bucket(burst=1000), tries=30)
    lowered = make_bucket(burst=2, per_second=20)
    assert not (await rate_limiter.take((lowered,))).is_allowed
    await limiter_time.let_pass(timedelta(milliseconds=50))
    assert (await rate_limiter.take((lowered,))).is_allowed
