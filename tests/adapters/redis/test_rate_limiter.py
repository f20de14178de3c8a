"""What a limiter leaves in Redis, for how long, and what it does when Redis is in trouble."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis, RedisCluster
from redis.crc import key_slot

from harness.redis import RedisServer
from sessions_adapters.redis import RedisConfig, RedisRateLimiter
from sessions_core.domain.ids import EnvironmentId
from sessions_core.domain.rate import Bucket, Rate
from sessions_core.errors import RateLimiterUnavailableError

pytestmark = pytest.mark.needs_redis

TIMEOUT = timedelta(milliseconds=300)
SLOW = Rate(0.001, 5)
texts = st.text(st.sampled_from("a:{}%é\ud800\U0001f980"), max_size=4) | st.text(max_size=8)
names = st.tuples(texts, texts)


def make_bucket(name: str = "environment", env: str = "env_a", rate: Rate = SLOW) -> Bucket:
    return Bucket(EnvironmentId(env), name, rate)


def key_of(environment: str, name: str) -> str:
    client: Any = None
    return RedisRateLimiter(client).key(make_bucket(name, environment))


@pytest.fixture
async def limiter(server: RedisServer) -> AsyncIterator[RedisRateLimiter]:
    async with RedisRateLimiter.connect(RedisConfig(url=server.url, timeout=TIMEOUT)) as limiter:
        yield limiter


@given(names, names)
def test_different_buckets_have_different_keys(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)


@given(texts.filter(bool), texts, texts)
def test_the_buckets_of_an_environment_are_in_one_place(environment: str, one: str, other: str) -> None:
    assert key_slot(key_of(environment, one).encode()) == key_slot(key_of(environment, other).encode())


def test_a_key_can_be_read_by_people() -> None:
    assert key_of("env_a", "token:abc") == "sessions:rates:{env_a}:token%3Aabc"


async def test_a_bucket_is_gone_when_it_is_full(limiter: RedisRateLimiter, admin: Redis) -> None:
    slow, quick = make_bucket("slow"), make_bucket("quick", rate=Rate(20, 3))
    for _ in range(2):
        await limiter.take((slow, quick))
    kept = await admin.pttl(limiter.key(slow))
    assert 1_900_000 < kept <= 2_000_000, "two permits of a thousand seconds each"
    with anyio.fail_after(10):
        while await admin.exists(limiter.key(quick)):
            await anyio.sleep(0.02)
    assert await admin.dbsize() == 1


async def test_a_request_that_is_refused_writes_nothing(limiter: RedisRateLimiter, admin: Redis) -> None:
    bucket, other = make_bucket(rate=Rate(0.001, 1)), make_bucket("other")
    await limiter.take((bucket,))
    before = await admin.get(limiter.key(bucket))
    for _ in range(3):
        assert not (await limiter.take((other, bucket))).is_allowed
    assert await admin.get(limiter.key(bucket)) == before
    assert await admin.dbsize() == 1


async def test_a_clock_that_was_put_back_empties_a_bucket_at_worst(limiter: RedisRateLimiter, admin: Redis) -> None:
    bucket = make_bucket(rate=Rate(20, 2))
    in_an_hour = int((time.time() + 3600) * 1_000_000)
    await admin.set(limiter.key(bucket), in_an_hour)
    refused = await limiter.take((bucket,))
    assert not refused.is_allowed
    await anyio.sleep(refused.wait.total_seconds())
    assert (await limiter.take((bucket,))).is_allowed


async def test_a_script_that_redis_has_forgotten_is_sent_again(limiter: RedisRateLimiter, admin: Redis) -> None:
    for left in (4, 3, 2):
        await admin.script_flush()
        assert (await limiter.take((make_bucket(),))).remaining == left


async def test_a_killed_server_is_an_error_and_a_restarted_one_is_not(
    server: RedisServer, limiter: RedisRateLimiter
) -> None:
    await limiter.take((make_bucket(),))
    server.kill()
    with pytest.raises(RateLimiterUnavailableError) as failure:
        await limiter.take((make_bucket(),))
    assert str(failure.value) == "The rate limiter is unavailable; try again"
    server.start()
    assert (await limiter.take((make_bucket(),))).remaining == 4, "and what it counted is forgotten"


async def test_a_server_that_hangs_costs_no_more_than_the_timeout(
    server: RedisServer, limiter: RedisRateLimiter
) -> None:
    await limiter.take((make_bucket(),))
    with server.standing_still():
        start = time.monotonic()
        with pytest.raises(RateLimiterUnavailableError):
            await limiter.take((make_bucket(),))
        assert time.monotonic() - start < 2 * TIMEOUT.total_seconds()
    assert (await limiter.take((make_bucket(),))).is_allowed


async def test_it_works_on_redis_cluster(cluster: RedisCluster) -> None:
    limiter = RedisRateLimiter(cluster, timeout=timedelta(seconds=10))
    for number in range(20):
        buckets = (make_bucket("token:a", f"env_{number}"), make_bucket("environment", f"env_{number}"))
        assert [(await limiter.take(buckets)).remaining for _ in range(2)] == [4, 3]
