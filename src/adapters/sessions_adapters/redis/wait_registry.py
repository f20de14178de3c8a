"""The registry of waits in Redis.

How this works
--------------
A channel's members are one set under one key, so each script touches a single key and Redis Cluster can run it where the
key is.

What a call leaves behind when its answer is lost is harmless: a member too many is ignored by whoever drains it, and
members that were drained for nobody are found by the sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import attrs

from sessions_adapters.redis.calls import RedisAdapter, Script, quoted
from sessions_core.domain.channel import Channel
from sessions_core.domain.ids import WaitpointId
from sessions_core.errors import WaitRegistryUnavailableError
from sessions_core.ports.waitpoint_store import WaitRegistry

GRACE: Final = timedelta(minutes=1)
"""Members are kept a little longer than asked: clocks differ, and one too many costs nothing."""

REGISTER: Final = Script("""
redis.call('SADD', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
""")
"""Adds a member. A new key has no time to live (-1), so the longest one wins from the first member on."""

DRAIN: Final = Script("""
local members = redis.call('SMEMBERS', KEYS[1])
if #members > 0 then
    redis.call('UNLINK', KEYS[1])
end
return members
""")
"""Takes all members out. Nearly always there are none, and then nothing is written."""


@attrs.define(eq=False)
class RedisWaitRegistry(RedisAdapter, WaitRegistry):
    """Remembers in Redis who waits on which channel."""

    failure = WaitRegistryUnavailableError

    async def register(self, channel: Channel, waitpoint_id: WaitpointId, keep: timedelta) -> None:
        milliseconds = (keep + GRACE) // timedelta(milliseconds=1)
        await self._calls.run(REGISTER, (self.key(channel),), waitpoint_id, milliseconds)

    async def drain(self, channel: Channel) -> Sequence[WaitpointId]:
        members = await self._calls.run(DRAIN, (self.key(channel),))
        return [WaitpointId(_text(member)) for member in members]

    async def unregister(self, channel: Channel, waitpoint_id: WaitpointId) -> None:
        await self._calls.execute("SREM", self.key(channel), waitpoint_id)

    def key(self, channel: Channel) -> str:
        """Return the key of *channel*. Everything that names the channel is its hash tag, quoted so that it is one."""
        parts: tuple[str, ...] = (channel.environment_id, channel.key, channel.io.value)
        if channel.name is not None:
            parts = (*parts, channel.name)
        return f"{self.prefix}waits:{{{':'.join(quoted(part) for part in parts)}}}"


def _text(member: str | bytes) -> str:
    return member if isinstance(member, str) else member.decode()
