"""Wake-ups of waits and limits of requests, shared by many processes, in Redis 6.2 or newer (or what speaks its protocol).

Redis keeps nothing here that would be missed: when it is gone, wake-ups take as long as the sweep needs to find them, nobody
is limited, and nothing is lost. Runs on asyncio only.
"""

from __future__ import annotations

from sessions_adapters.redis.calls import open_client
from sessions_adapters.redis.config import RedisConfig
from sessions_adapters.redis.inspection import RedisFacts, inspect
from sessions_adapters.redis.rate_limiter import RedisRateLimiter
from sessions_adapters.redis.wait_registry import RedisWaitRegistry

__all__ = ["RedisConfig", "RedisFacts", "RedisRateLimiter", "RedisWaitRegistry", "inspect", "open_client"]
