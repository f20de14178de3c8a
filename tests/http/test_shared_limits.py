"""Limits that servers share in a Redis, and a Redis that is not there: then nobody is refused, and nobody waits."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import pytest
from aiohttp import ClientSession

from harness.backends import environment_of, opened_backends
from harness.client import Client
from harness.in_process import OTHER_KEY, ROOT_KEY, Site, open_site_on
from harness.limits import READ, reads
from harness.redis import RedisServer
from harness.server import KEY, ServerProcess
from sessions_adapters.profiles import MEMORY, POSTGRES, Backends
from sessions_core.domain.rate import Rate
from sessions_server.config import Config, variable_of

pytestmark = pytest.mark.needs_redis

PATIENCE = 30
TRIES = 20
BURST = 25


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="sessions-redis-") as folder, RedisServer(Path(folder)) as server:
        yield server


@pytest.fixture
async def site(redis: RedisServer, tmp_path: Path) -> AsyncGenerator[Site]:
    """A server that lets each environment ask a few times, and no more."""
    backends = Backends(profile=MEMORY, data=tmp_path, redis_url=redis.url)
    async with open_site_on(
        backends, Config(environment_rate=Rate(0.001, BURST), token_rate=Rate(0.001, BURST))
    ) as site:
        yield site


async def uncounted(site: Site) -> float:
    text: str = (await site.client().call("GET", "/metrics")).body
    return float(
        next(line for line in text.splitlines() if line.startswith("sessions_requests_uncounted_total")).split()[1]
    )


@pytest.mark.needs_postgres
async def test_two_server_processes_share_a_limit(redis: RedisServer, tmp_path: Path) -> None:
    with opened_backends(POSTGRES, tmp_path) as backends:
        settings = environment_of(attrs.evolve(backends, redis_url=redis.url))
        settings[variable_of("environment_rate")] = f"0.001:{BURST}"
        first, second = (ServerProcess(tmp_path / "data", environment=settings) for _ in range(2))
        with first, second:
            async with ClientSession() as http:
                one, other = (Client(http, server.address, KEY) for server in (first, second))
                found = [status for _ in range(TRIES) for client in (one, other) for status in await reads(client, 1)]
    assert found == [404] * BURST + [429] * (2 * TRIES - BURST)


async def test_environments_do_not_share(site: Site) -> None:
    assert await reads(site.client(ROOT_KEY), BURST + 1) == [404] * BURST + [429]
    assert await reads(site.client(OTHER_KEY), BURST + 1) == [404] * BURST + [429]


async def test_while_redis_is_down_everybody_is_let_through_and_then_it_counts_again(
    site: Site, redis: RedisServer
) -> None:
    client = site.client()
    assert await reads(client, BURST + 1) == [404] * BURST + [429]
    redis.kill()
    assert await reads(client, 50) == [404] * 50
    assert await uncounted(site) == 50
    text = (await client.call("GET", "/metrics")).body
    assert 'sessions_events_total{event="SystemFailed"}' in text
    redis.start()
    async with asyncio.timeout(PATIENCE):
        while (await client.call("GET", READ)).status != 429:
            await asyncio.sleep(0.01)


async def test_a_redis_that_hangs_holds_up_nobody_for_long(site: Site, redis: RedisServer) -> None:
    client = site.client()
    assert await reads(client, 1) == [404]
    with redis.standing_still():
        async with asyncio.timeout(PATIENCE):
            found = await asyncio.gather(*(reads(client, 10) for _ in range(10)))
        start = time.monotonic()
        assert await reads(client, 1) == [404]
        assert time.monotonic() - start < PATIENCE
    assert {status for each in found for status in each} == {404}
    assert await uncounted(site) >= 100


async def test_nothing_of_a_credential_is_in_redis(site: Site, redis: RedisServer) -> None:
    from redis.asyncio import Redis

    await reads(site.client(), 1)
    token = site.sign(["read:sessions"])
    await reads(site.client(token), 1)
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(Redis(unix_socket_path=str(redis.socket), decode_responses=True))
        keys = await admin.keys("*")
    assert len(keys) == 2
    assert all(not any(part in key for part in (ROOT_KEY, *token.split("."))) for key in keys)
