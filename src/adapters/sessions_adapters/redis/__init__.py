"""Wake-ups of waits, shared by many processes, in Redis 6.2 or newer (or a system that speaks its protocol).

Redis keeps nothing here that is not also somewhere else: when it is gone, wake-ups take as long as the sweep needs to find
them, and nothing is lost. Runs on asyncio only.
"""

from __future__ import annotations

from sessions_adapters.redis.config import RedisConfig
from sessions_adapters.redis.inspection import RedisFacts, inspect
from sessions_adapters.redis.wait_registry import RedisWaitRegistry

__all__ = ["RedisConfig", "RedisFacts", "RedisWaitRegistry", "inspect"]
