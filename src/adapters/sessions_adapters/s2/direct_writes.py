"""Credentials for writing one channel's stream without us."""

from __future__ import annotations

import math
import secrets
import time
from datetime import UTC, datetime
from typing import Final

import attrs
from s2_sdk import AccessTokenScope, ExactMatch, Operation

from sessions_adapters.s2.basin import S2Basin
from sessions_adapters.s2.config import UNSCOPED_TOKEN, S2Config
from sessions_adapters.s2.failures import translated
from sessions_core.domain.channel import Channel
from sessions_core.domain.direct import Tenure
from sessions_core.ports.direct_writes import DirectWrites, WriteCredentials

HOSTED: Final = "https://{basin}.b.s2.dev"
API_PATH: Final = "/v1"
OPERATIONS: Final = (Operation.APPEND, Operation.TRIM)
"""Not ``fence``: a guard is set by us alone. Not ``create-stream``: the stream is there when its credentials are."""


@attrs.define(eq=False)
class S2DirectWrites(DirectWrites):
    """Hands out S2 access tokens for exactly one stream; where the service issues none, what the server is reached with.

    A token is handed out again while it is good for at least half its time.
    """

    _basin: S2Basin
    _issued: dict[Channel, tuple[float, str]] = attrs.field(init=False, factory=dict)

    @property
    def is_scoped(self) -> bool:
        return self._basin.config.issues_tokens

    async def issue(self, channel: Channel, *, tenure: Tenure, ends_at: datetime | None = None) -> WriteCredentials:
        del tenure  # a fencing token per direct writer would shut out the others
        config = self._basin.config
        stream = self._basin.stream(channel)
        with translated():
            await stream.ensure()
            token = await self._token(channel, stream.name, ends_at) if config.issues_tokens else UNSCOPED_TOKEN
        return WriteCredentials(
            token=token,
            basin=config.basin,
            stream=stream.name,
            endpoint=endpoint_of(config),
            flush_interval_ms=config.flush_interval_ms,
        )

    async def _token(self, channel: Channel, stream: str, ends_at: datetime | None) -> str:
        now, lifetime = time.time(), self._basin.config.token_lifetime.total_seconds()
        latest = math.inf if ends_at is None else ends_at.timestamp()
        expiry, token = self._issued.get(channel, (0.0, ""))
        if now + lifetime / 2 < expiry <= latest:
            return token
        expiry = min(now + lifetime, latest)
        issued = await self._issue(stream, expiry)
        self._issued = {known: value for known, value in self._issued.items() if value[0] - now > lifetime / 2}
        if expiry > self._issued.get(channel, (0.0, ""))[0]:
            self._issued[channel] = (expiry, issued)
        return issued

    async def _issue(self, stream: str, expiry: float) -> str:
        scope = AccessTokenScope(
            basins=ExactMatch(self._basin.config.basin), streams=ExactMatch(stream), ops=list(OPERATIONS)
        )
        token: str = await self._basin.admin.issue_access_token(
            f"sessions-{secrets.token_hex(16)}", scope=scope, expires_at=datetime.fromtimestamp(expiry, UTC)
        )
        return token


def endpoint_of(config: S2Config) -> str:
    """Return the address of the API as direct writers see it."""
    return (config.direct_endpoint or config.endpoint or HOSTED.format(basin=config.basin)) + API_PATH
