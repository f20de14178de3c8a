"""The registry of waits in Redis.

How this works
--------------
A channel's members are one set under one key, so each script touches a single key and Redis Cluster can run it where the
key is. Scripts are called by their hash; a Redis that does not know one (it was restarted, or a replica took over) gets
it sent along once.

What a call leaves behind when its answer is lost is harmless: a member too many is ignored by whoever drains it, and
members that were drained for nobody are found by the sweep.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final, Self
from urllib.parse import quote

import anyio
import attrs

from sessions_adapters.redis.config import RedisConfig
from sessions_core.domain.channel import Channel
from sessions_core.domain.ids import WaitpointId
from sessions_core.errors import MissingExtraError, WaitRegistryUnavailableError
from sessions_core.ports.waitpoint_store import WaitRegistry

try:
    from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import NoScriptError, ReadOnlyError, RedisClusterException, RedisError, ResponseError
except ImportError as exc:
    raise MissingExtraError("A wait registry in Redis", "redis", "redis") from exc

GRACE: Final = timedelta(minutes=1)
"""Members are kept a little longer than asked: clocks differ, and one too many costs nothing."""
FAILURES: Final = (RedisError, RedisClusterException, OSError, TimeoutError)


@attrs.frozen
class Script:
    """A Lua script over one key."""

    text: str
    sha: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode()).hexdigest())  # noqa: S324 - Redis' choice


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
class RedisWaitRegistry(WaitRegistry):
    """Remembers in Redis who waits on which channel.

    Takes a ready client, which it never closes; :meth:`connect` makes one of its own.

    Attributes:
        prefix: How keys begin.
        timeout: How long one call may take in all.
    """

    _client: Redis | RedisCluster
    prefix: str = attrs.field(default="sessions:", kw_only=True)
    timeout: timedelta = attrs.field(default=timedelta(milliseconds=500), kw_only=True)

    @classmethod
    @asynccontextmanager
    async def connect(cls, config: RedisConfig) -> AsyncGenerator[Self]:
        """Use a client of its own inside the block. Connections are made when they are needed, so Redis may be down."""
        async with open_client(config) as client:
            yield cls(client, prefix=config.prefix, timeout=config.timeout)

    async def register(self, channel: Channel, waitpoint_id: WaitpointId, keep: timedelta) -> None:
        milliseconds = (keep + GRACE) // timedelta(milliseconds=1)
        await self._within(self._run(REGISTER, channel, waitpoint_id, str(milliseconds)))

    async def drain(self, channel: Channel) -> Sequence[WaitpointId]:
        members = await self._within(self._run(DRAIN, channel))
        return [WaitpointId(_text(member)) for member in members]

    async def unregister(self, channel: Channel, waitpoint_id: WaitpointId) -> None:
        await self._within(self._client.execute_command("SREM", self.key(channel), waitpoint_id))

    def key(self, channel: Channel) -> str:
        """Return the key of *channel*. Everything that names the channel is its hash tag, quoted so that it is one."""
        parts: tuple[str, ...] = (channel.environment_id, channel.key, channel.io.value)
        if channel.name is not None:
            parts = (*parts, channel.name)
        return f"{self.prefix}waits:{{{':'.join(_quoted(part) for part in parts)}}}"

    async def _run(self, script: Script, channel: Channel, *arguments: str) -> Any:
        words = ("1", self.key(channel), *arguments)
        try:
            return await self._client.execute_command("EVALSHA", script.sha, *words)
        except NoScriptError:
            return await self._client.execute_command("EVAL", script.text, *words)

    async def _within(self, call: Awaitable[Any]) -> Any:
        """Return what *call* answers in time.

        Raises:
            WaitRegistryUnavailableError: Nothing, or an error.
        """
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                return await call
        except FAILURES as exc:
            await self._look_again_after(exc)
            raise WaitRegistryUnavailableError from exc

    async def _look_again_after(self, error: Exception) -> None:
        """Connect anew if the server may only be read: another one has taken over, and its name may lead there by now."""
        pool = getattr(self._client, "connection_pool", None)  # a cluster's client finds its way by itself
        if pool is not None and _is_read_only(error):
            with suppress(*FAILURES):
                await pool.disconnect(inuse_connections=False)


@asynccontextmanager
async def open_client(config: RedisConfig) -> AsyncGenerator[Redis]:
    """Make a client for the time of the block. Nothing is sent before it is used."""
    seconds = config.timeout.total_seconds()
    pool = BlockingConnectionPool.from_url(
        config.url,
        max_connections=config.max_connections,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        protocol=2,  # nothing here needs more, and it saves a round trip and a subscription per connection
        retry=Retry(NoBackoff(), 1),  # a connection that died with the last Redis is not worth an error
    )
    client = Redis(connection_pool=pool)
    try:
        yield client
    finally:
        with anyio.move_on_after(seconds, shield=True):
            await client.aclose()
            await pool.aclose()


def _is_read_only(error: Exception) -> bool:
    """Tell whether *error* is a replica's; Redis before 7.0 wraps that of a script in one about the script."""
    return isinstance(error, ReadOnlyError) or (isinstance(error, ResponseError) and "READONLY" in str(error))


def _quoted(part: str) -> str:
    return quote(part, safe="", errors="surrogatepass")


def _text(member: str | bytes) -> str:
    return member if isinstance(member, str) else member.decode()
