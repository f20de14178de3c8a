"""A Redis that dies, hangs, may only be read or is still loading: a typed error in time, and all well afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError, RedisError

from harness.redis import RedisServer
from sessions_adapters.redis import RedisConfig, RedisWaitRegistry
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.ids import AddressingKey, EnvironmentId, WaitpointId
from sessions_core.errors import WaitRegistryUnavailableError

pytestmark = pytest.mark.needs_redis

CHANNEL = Channel(EnvironmentId("env_a"), AddressingKey("key"), Io.IN)
ONE, TWO = WaitpointId("waitpoint_one"), WaitpointId("waitpoint_two")
WEEK = timedelta(days=7)
Call = Callable[[], Awaitable[object]]


def calls_of(registry: RedisWaitRegistry) -> list[Call]:
    return [
        partial(registry.register, CHANNEL, TWO, WEEK),
        partial(registry.drain, CHANNEL),
        partial(registry.unregister, CHANNEL, ONE),
    ]


async def failure_of(call: Call) -> BaseException | None:
    """Return the driver's error behind the one that *call* raises."""
    with pytest.raises(WaitRegistryUnavailableError) as caught:
        await call()
    assert str(caught.value) == "The wait registry is unavailable; try again"
    return caught.value.__cause__


async def works(registry: RedisWaitRegistry) -> bool:
    await registry.drain(CHANNEL)
    await registry.register(CHANNEL, ONE, WEEK)
    return list(await registry.drain(CHANNEL)) == [ONE]


async def test_a_killed_server_is_an_error_and_a_restarted_one_is_not(
    server: RedisServer, registry: RedisWaitRegistry
) -> None:
    await registry.register(CHANNEL, ONE, WEEK)
    server.kill()
    for call in calls_of(registry):
        assert isinstance(await failure_of(call), RedisError)
    server.start()
    assert await works(registry)


async def test_a_restart_between_two_calls_goes_unnoticed(server: RedisServer, registry: RedisWaitRegistry) -> None:
    assert await works(registry)
    server.kill()
    server.start()
    assert await works(registry)


async def test_a_server_may_come_after_us(server: RedisServer, registry: RedisWaitRegistry) -> None:
    server.kill()
    async with RedisWaitRegistry.connect(RedisConfig(url=server.url)) as early:
        await failure_of(partial(early.drain, CHANNEL))
        server.start()
        assert await works(early)


async def end_in_time(registry: RedisWaitRegistry) -> None:
    for call in calls_of(registry):
        start = time.monotonic()
        assert isinstance(await failure_of(call), RedisError | TimeoutError)
        assert time.monotonic() - start < 2 * registry.timeout.total_seconds()


async def test_a_server_that_hangs_costs_no_more_than_the_timeout(
    server: RedisServer, registry: RedisWaitRegistry
) -> None:
    await registry.register(CHANNEL, ONE, WEEK)
    with server.standing_still():
        await end_in_time(registry)
    assert await works(registry)


async def test_a_server_that_is_paused_costs_no_more_than_the_timeout(
    registry: RedisWaitRegistry, admin: Redis
) -> None:
    await registry.register(CHANNEL, ONE, WEEK)
    await admin.client_pause(60_000, all=False)
    await end_in_time(registry)
    await admin.client_unpause()
    assert await works(registry)


async def test_a_server_that_may_only_be_read_is_left_for_its_successor(
    registry: RedisWaitRegistry, admin: Redis
) -> None:
    await registry.register(CHANNEL, ONE, WEEK)
    await admin.replicaof("127.0.0.1", "1")
    before = await connections(admin)
    for call in calls_of(registry):
        assert "read only replica" in str(await failure_of(call))
    async with asyncio.timeout(10):  # the next call looks up the address again
        while await connections(admin) >= before:
            await asyncio.sleep(0.01)
    await admin.replicaof("NO", "ONE")
    assert await works(registry)


async def connections(admin: Redis) -> int:
    return len(await admin.client_list())


async def test_a_server_that_is_still_loading_is_an_error(server: RedisServer, admin: Redis) -> None:
    await fill(admin)
    server.kill()
    server.launch("--key-load-delay", "100")  # in microseconds; it looks at connections every 2 MiB
    config = RedisConfig(url=server.url, timeout=timedelta(seconds=10))
    async with RedisWaitRegistry.connect(config) as registry:
        causes = await failures_until_it_works(registry)
        assert any(isinstance(cause, BusyLoadingError) for cause in causes)
        assert await works(registry)


async def fill(admin: Any) -> None:
    """Store on disk what takes about a second to load."""
    await admin.config_set("rdbcompression", "no")
    await admin.execute_command("DEBUG", "POPULATE", "6000", "filler", "4096")
    await admin.save()


async def failures_until_it_works(registry: RedisWaitRegistry) -> list[BaseException | None]:
    causes: list[BaseException | None] = []
    with anyio.fail_after(20):
        while True:
            try:
                await registry.register(CHANNEL, ONE, WEEK)
            except WaitRegistryUnavailableError as error:
                causes.append(error.__cause__)
                await anyio.sleep(0.01)
            else:
                return causes


async def test_more_calls_than_connections_take_turns(server: RedisServer) -> None:
    config = RedisConfig(url=server.url, max_connections=2, timeout=timedelta(seconds=10))
    async with RedisWaitRegistry.connect(config) as registry, anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(registry.register, CHANNEL, WaitpointId(f"waitpoint_{number}"), WEEK)
    async with RedisWaitRegistry.connect(config) as registry:
        assert len(await registry.drain(CHANNEL)) == 200


async def test_when_no_connection_is_free_in_time_it_is_an_error(server: RedisServer) -> None:
    config = RedisConfig(url=server.url, max_connections=1, timeout=timedelta(milliseconds=200))
    async with RedisWaitRegistry.connect(config) as registry:
        with server.standing_still():
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(failure_of, partial(registry.drain, CHANNEL))
        assert await works(registry)


async def test_cancelled_calls_leave_no_connection_behind(server: RedisServer, admin: Redis) -> None:
    config = RedisConfig(url=server.url, max_connections=3, timeout=timedelta(seconds=10))
    async with RedisWaitRegistry.connect(config) as registry:
        assert await works(registry)
        for _ in range(20):
            await cancel_many(registry)
        assert await works(registry), "all connections are free again"
        tasks = [asyncio.create_task(works_for(registry, number)) for number in range(30)]
        assert all(await asyncio.gather(*tasks)), "and none has somebody else's answer in it"
        assert await connections(admin) <= 1 + 3


async def test_connections_are_closed_also_when_the_block_is_cancelled(server: RedisServer, admin: Redis) -> None:
    with anyio.CancelScope() as scope:
        async with RedisWaitRegistry.connect(RedisConfig(url=server.url)) as registry:
            assert await works(registry)
            scope.cancel()
            await anyio.sleep_forever()
    with anyio.fail_after(10):
        while await connections(admin) > 1:
            await anyio.sleep(0.01)


async def cancel_many(registry: RedisWaitRegistry) -> None:
    """Begin calls and cancel them at different points of their way."""
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(registry.register, CHANNEL, ONE, WEEK)
            tasks.start_soon(registry.drain, CHANNEL)
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


async def works_for(registry: RedisWaitRegistry, number: int) -> bool:
    channel, member = Channel(CHANNEL.environment_id, AddressingKey(f"{number}"), Io.IN), WaitpointId(f"w_{number}")
    await registry.register(channel, member, WEEK)
    return list(await registry.drain(channel)) == [member]
