"""The limiter that processes share, in Redis.

How this works
--------------
A bucket is one key with one number, the moment at which it will be full (see :mod:`sessions_core.domain.rate`), by the
server's own clock: processes whose clocks differ count alike. The key expires at that moment, when it says no more than one
that is not there. Buckets of one request have their environment as the hash tag, so one script takes from all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from sessions_adapters.redis.calls import RedisAdapter, Script, quoted
from sessions_core.domain.rate import Bucket, Taken
from sessions_core.errors import RateLimiterUnavailableError
from sessions_core.ports.rate_limiter import RateLimiter

TAKE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local debts = {}
for i, key in ipairs(KEYS) do
    local interval, span = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    local full_at = tonumber(redis.call('GET', key) or now)
    if full_at - now > span then -- the clock was put back
        full_at = now + span
        redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil(span / 1000))
    end
    local debt = math.max(full_at - now, 0)
    if debt + interval > span then
        return {0, i, debt}
    end
    debts[i] = debt + interval
end
for i, key in ipairs(KEYS) do
    redis.call('SET', key, string.format('%.0f', now + debts[i]), 'PX', math.ceil(debts[i] / 1000))
end
return {1, 1, debts[1]}
""")
"""Takes from all buckets or none. For each key: microseconds between two permits, and until an empty bucket is full.

Answers whether all have given, the number of the bucket that refused, else 1, and that one's debt.
"""


@attrs.define(eq=False)
class RedisRateLimiter(RedisAdapter, RateLimiter):
    """Counts in Redis what is asked of all processes."""

    failure = RateLimiterUnavailableError

    async def take(self, buckets: Sequence[Bucket]) -> Taken:
        arguments = [number for bucket in buckets for number in (bucket.rate.interval, bucket.rate.span)]
        is_allowed, number, debt = await self._calls.run(TAKE, [self.key(bucket) for bucket in buckets], *arguments)
        return Taken(bool(is_allowed), buckets[number - 1], debt)

    def key(self, bucket: Bucket) -> str:
        """Return the key of *bucket*. Its environment is the hash tag; both parts are quoted so that they stay apart."""
        return f"{self.prefix}rates:{{{quoted(bucket.environment_id or '')}}}:{quoted(bucket.name)}"
