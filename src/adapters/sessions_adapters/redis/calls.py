"""Calling Redis: clients, scripts, and a deadline for everything."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, ClassVar, Final, Self
from urllib.parse import quote

import anyio
import attrs

from sessions_adapters.redis.config import RedisConfig
from sessions_core.errors import MissingExtraError, UnavailableError

try:
    from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import NoScriptError, ReadOnlyError, RedisClusterException, RedisError, ResponseError
except ImportError as exc:
    raise MissingExtraError("What is kept in Redis", "redis", "redis") from exc

FAILURES: Final = (RedisError, RedisClusterException, OSError, TimeoutError)


@attrs.frozen
class Script:
    """A Lua script. All its keys have one hash tag."""

    text: str
    sha: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode()).hexdigest())  # noqa: S324 - Redis' choice


@attrs.define(eq=False)
class Calls:
    """Calls over a client, which is never closed here.

    Scripts are called by their hash; a Redis that does not know one (it was restarted, or a replica took over) gets it sent
    along once.

    Attributes:
        timeout: How long one call may take in all.
        failure: What is raised when there is no answer, or an error.
    """

    _client: Redis | RedisCluster
    timeout: timedelta
    failure: type[UnavailableError]

    async def run(self, script: Script, keys: Sequence[str], *arguments: str | int) -> Any:
        """Return what *script* returns.

        Raises:
            UnavailableError: The ``failure``.
        """
        return await self._within(self._run(script, str(len(keys)), *keys, *arguments))

    async def execute(self, *words: str) -> Any:
        """Return what a command returns.

        Raises:
            UnavailableError: The ``failure``.
        """
        return await self._within(self._client.execute_command(*words))

    async def _run(self, script: Script, *words: str | int) -> Any:
        try:
            return await self._client.execute_command("EVALSHA", script.sha, *words)
        except NoScriptError:
            return await self._client.execute_command("EVAL", script.text, *words)

    async def _within(self, call: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                return await call
        except FAILURES as exc:
            await self._look_again_after(exc)
            raise self.failure from exc

    async def _look_again_after(self, error: Exception) -> None:
        """Connect anew if the server may only be read: another one has taken over, and its name may lead there by now."""
        pool = getattr(self._client, "connection_pool", None)  # a cluster's client finds its way by itself
        if pool is not None and _is_read_only(error):
            with suppress(*FAILURES):
                await pool.disconnect(inuse_connections=False)


@asynccontextmanager
async def open_client(config: RedisConfig) -> AsyncGenerator[Redis]:
    """Make a client for the time of the block. Nothing is sent before it is used, so Redis may be down."""
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


@attrs.define(eq=False)
class RedisAdapter:
    """What all adapters over Redis have.

    Takes a ready client, which it never closes; :meth:`connect` makes one of its own.

    Attributes:
        failure: What is raised when there is no answer, or an error.
        prefix: How keys begin.
        timeout: How long one call may take in all.
    """

    failure: ClassVar[type[UnavailableError]]

    _client: Redis | RedisCluster
    prefix: str = attrs.field(default="sessions:", kw_only=True)
    timeout: timedelta = attrs.field(default=timedelta(milliseconds=500), kw_only=True)
    _calls: Calls = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._calls = Calls(self._client, self.timeout, self.failure)

    @classmethod
    @asynccontextmanager
    async def connect(cls, config: RedisConfig) -> AsyncGenerator[Self]:
        """Use a client of its own inside the block. Connections are made when they are needed, so Redis may be down."""
        async with open_client(config) as client:
            yield cls(client, prefix=config.prefix, timeout=config.timeout)


def quoted(part: str) -> str:
    """Return *part* in a form in which it can be joined with others, and be in a hash tag."""
    return quote(part, safe="", errors="surrogatepass")


def _is_read_only(error: Exception) -> bool:
    """Tell whether *error* is a replica's; Redis before 7.0 wraps that of a script in one about the script."""
    return isinstance(error, ReadOnlyError) or (isinstance(error, ResponseError) and "READONLY" in str(error))
