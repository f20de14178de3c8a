"""Who comes in, and how often.

A request takes one permit, as everywhere. An append session takes one more for each batch, or for those that came together;
there it waits for what it cannot have at once, so that flow control slows its client down, instead of breaking it off.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import attrs
from anyio import CancelScope

from sessions_core.domain.channel import Channel
from sessions_core.domain.ids import EnvironmentId
from sessions_core.domain.rate import Taken
from sessions_core.ports.clock import Clock
from sessions_server.auth.authenticator import Authenticator
from sessions_server.data_plane.credentials import DirectTokens, is_direct
from sessions_server.exchange import Exchange
from sessions_server.limits.limits import Limits
from sessions_server.limits.streams import Held
from sessions_server.limits.unfinished_bytes import Share
from sessions_server.problems import RateLimitedError, UnauthenticatedError
from sessions_server.streams import Streams

BEARER: Final = "Bearer "
PATIENCE_SECONDS: Final = 4.0
"""A client that has no ack after five seconds sends its batch again."""


@attrs.frozen
class Visitor:
    """Whoever sent a request.

    Attributes:
        counted_as: The name under which a token is counted; None if a key was shown.
        credential: What was shown.
        expires_at: Unix seconds after which that no longer works; None if it has no end.
        taken: The permit that was taken for the request, if there is a limit.
    """

    environment_id: EnvironmentId
    counted_as: str | None
    credential: str = attrs.field(repr=False)
    expires_at: float | None
    taken: Taken | None = None


@attrs.define
class Gate:
    """Lets in whoever has a credential that works and has not come too often."""

    _auth: Authenticator
    _tokens: DirectTokens
    _limits: Limits
    _streams: Streams
    _clock: Clock

    async def enter(self, exchange: Exchange) -> Visitor:
        """Let a request in.

        Raises:
            UnauthenticatedError: No credential was shown, or one that does not work.
            RateLimitedError: There were too many requests, or too many credentials that do not work.
        """
        visitor = await self._identify(exchange)
        taken = await self._limits.permits.take(visitor.environment_id, visitor.counted_as)
        return attrs.evolve(visitor, taken=taken)

    async def wait(self, visitor: Visitor) -> None:
        """Let a further batch in once there is a permit for it.

        Raises:
            RateLimitedError: There was none for seconds.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while True:
            try:
                await self._limits.permits.take(visitor.environment_id, visitor.counted_as)
            except RateLimitedError as error:
                seconds = error.wait.total_seconds()
                if loop.time() + seconds > deadline:
                    raise
                await asyncio.sleep(seconds)
            else:
                return

    def holding_stream(self, visitor: Visitor, channel: Channel) -> Held:
        """Count the request as an open stream of *channel* inside the block.

        Raises:
            TooManyStreamsError: There are too many already.
        """
        return self._limits.streams.held(visitor.environment_id, visitor.counted_as, channel)

    def open_stream(self, visitor: Visitor) -> AbstractContextManager[CancelScope]:
        """Run the block until it is done, the server stops, or the visitor's credential no longer works."""
        end, now = visitor.expires_at, self._clock.now().timestamp()
        return self._streams.open(math.inf if end is None else end - now, BEARER + visitor.credential)

    @contextmanager
    def holding_open(self, visitor: Visitor, channel: Channel) -> Iterator[CancelScope]:
        """Do both for the block.

        Raises:
            TooManyStreamsError: There are too many already.
        """
        with self.holding_stream(visitor, channel), self.open_stream(visitor) as scope:
            yield scope

    def share_of(self, visitor: Visitor) -> Share:
        """Return what counts what is held for the visitor's request until it is finished."""
        return self._limits.unfinished.share_of(visitor.environment_id, visitor.counted_as)

    async def _identify(self, exchange: Exchange) -> Visitor:
        token = bearer(exchange)
        if self._tokens.has_admitted(token) or self._auth.has_admitted(BEARER + token):
            return await self._look_at(token)
        async with self._limits.guesses.counted(exchange.peer, exchange.headers):
            return await self._look_at(token)

    async def _look_at(self, token: str) -> Visitor:
        if not is_direct(token):
            caller = await self._auth.authenticate(BEARER + token)
            return Visitor(caller.environment.id, caller.counted_as, token, caller.expires_at)
        found = await self._tokens.find(token)
        if found is None:
            raise UnauthenticatedError("The access token is invalid or has expired")
        return Visitor(found.channel.environment_id, found.counted_as, token, found.until)


async def is_refused(auth: Authenticator, direct_tokens: DirectTokens, header: str) -> bool:
    """Tell whether a credential that was admitted, of whatever kind, no longer works. A silent store refuses none."""
    token = header.removeprefix(BEARER)
    return await (direct_tokens.is_refused(token) if is_direct(token) else auth.is_refused(header))


def bearer(exchange: Exchange) -> str:
    """Return the credential.

    Raises:
        UnauthenticatedError: None was shown.
    """
    header = exchange.headers.get("authorization", "")
    token = header.removeprefix(BEARER).strip()
    if not header.startswith(BEARER) or not token:
        raise UnauthenticatedError
    return token
