"""What ``sessions doctor`` wants to know of a Redis. Changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs

from sessions_adapters.redis.calls import FAILURES, open_client
from sessions_adapters.redis.config import RedisConfig
from sessions_adapters.redis.rate_limiter import TAKE
from sessions_adapters.redis.wait_registry import DRAIN
from sessions_core.errors import WaitRegistryUnavailableError


@attrs.frozen(kw_only=True)
class RedisFacts:
    """What a server has said.

    Attributes:
        is_cluster: It is a node of a cluster, which answers only for some of the keys.
        is_writable: It is no replica.
    """

    version: str
    is_cluster: bool
    is_writable: bool


async def inspect(config: RedisConfig) -> RedisFacts:
    """Ask the server, and let it run each script that changes nothing: on a key that is not there, and on none.

    Raises:
        WaitRegistryUnavailableError: It gives no answer, or refuses.
    """
    try:
        async with asyncio.timeout(config.timeout.total_seconds()), open_client(config) as opened:
            client: Any = opened  # the driver's annotations do not tell its asynchronous answers
            said: dict[str, Any] = await client.info()
            await client.eval(DRAIN.text, 1, f"{config.prefix}waits:{{doctor}}")
            await client.eval(TAKE.text, 0)
    except FAILURES as exc:
        raise WaitRegistryUnavailableError from exc
    return RedisFacts(
        version=str(said["redis_version"]),
        is_cluster=said.get("redis_mode") == "cluster",
        is_writable=said.get("role") == "master",
    )
