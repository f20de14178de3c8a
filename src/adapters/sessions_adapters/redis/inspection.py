"""What ``sessions doctor`` wants to know of a Redis. Changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs

from sessions_adapters.redis.config import RedisConfig
from sessions_adapters.redis.wait_registry import DRAIN, FAILURES, open_client
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
    """Ask the server, and let it run a script on a key that is not there.

    Raises:
        WaitRegistryUnavailableError: It gives no answer, or refuses.
    """
    try:
        async with asyncio.timeout(config.timeout.total_seconds()), open_client(config) as opened:
            client: Any = opened  # the driver's annotations do not tell its asynchronous answers
            said: dict[str, Any] = await client.info()
            await client.eval(DRAIN.text, 1, f"{config.prefix}waits:{{doctor}}")
    except FAILURES as exc:
        raise WaitRegistryUnavailableError from exc
    return RedisFacts(
        version=str(said["redis_version"]),
        is_cluster=said.get("redis_mode") == "cluster",
        is_writable=said.get("role") == "master",
    )
