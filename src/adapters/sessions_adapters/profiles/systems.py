"""The systems beside the store, each of which takes one group of ports out of it. Each is imported when it is opened."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from typing import Any

import attrs

from sessions_adapters.profiles.backends import CLICKHOUSE, Backends
from sessions_core.errors import IndexUnavailableError
from sessions_core.facade import Ports
from sessions_core.ports.clock import Clock


async def open_systems(stack: AsyncExitStack, backends: Backends, ports: Ports, clock: Clock | None) -> Ports:
    """Open them for as long as *stack* lives; return *ports* with theirs in place of the store's."""
    taken = await _s2(stack, backends, clock)
    taken |= await _redis(stack, backends)
    taken |= await _clickhouse(stack, backends, ports.clock)
    return attrs.evolve(ports, **taken)


async def _s2(stack: AsyncExitStack, backends: Backends, clock: Clock | None) -> dict[str, Any]:
    config = backends.s2()
    if config is None:
        return {}
    from sessions_adapters import s2

    basin = await stack.enter_async_context(s2.open_basin(config, clock=clock))
    return {"log": s2.S2ChannelLog(basin), "direct_writes": s2.S2DirectWrites(basin)}


async def _redis(stack: AsyncExitStack, backends: Backends) -> dict[str, Any]:
    config = backends.redis()
    if config is None:
        return {}
    from sessions_adapters import redis

    client = await stack.enter_async_context(redis.open_client(config))
    return {
        "wait_registry": redis.RedisWaitRegistry(client, prefix=config.prefix, timeout=config.timeout),
        "rate_limiter": redis.RedisRateLimiter(client, prefix=config.prefix, timeout=config.timeout),
    }


async def _clickhouse(stack: AsyncExitStack, backends: Backends, clock: Clock) -> dict[str, Any]:
    config = backends.clickhouse()
    if config is None or backends.index != CLICKHOUSE:
        return {}
    from sessions_adapters import clickhouse

    database = await stack.enter_async_context(clickhouse.open_database(config))
    with suppress(IndexUnavailableError):  # all but lists works without it, and they will when it is there
        await clickhouse.check_schema(database)
    return {"index": clickhouse.ClickHouseSessionIndex(database, clock)}
