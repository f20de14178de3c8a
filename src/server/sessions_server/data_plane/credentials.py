"""Credentials of direct writers: tokens that we sign, each for one channel and a short time.

A token is a JWT under a root key of its environment, like a public token, but says ``"use": "direct"`` instead of ``"pub": true``, so
neither is taken for the other. It names the channel and, for ``out``, the tenure of the run that it was issued to.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from sessions_core.domain.bounded import BoundedDict
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.direct import Tenure
from sessions_core.domain.environment import RootKey
from sessions_core.domain.ids import AddressingKey, EnvironmentId
from sessions_core.errors import UnavailableError
from sessions_core.ports.clock import Clock
from sessions_core.ports.direct_writes import DirectWrites, WriteCredentials
from sessions_server.auth import tokens
from sessions_server.auth.authenticator import REMEMBERED, Authenticator
from sessions_server.data_plane.names import basin_of, stream_of
from sessions_server.data_plane.records import Operation

API_PATH: Final = "/v1"
FLUSH_INTERVAL_MS: Final = 20
"""How long a client gathers records before it sends them. We answer within a commit, so there is little to wait for."""
_USE: Final = "direct"


@attrs.frozen(kw_only=True)
class DirectToken:
    """What a token allows.

    Attributes:
        counted_as: The name under which its requests and streams are counted.
        tenure: None for ``in``, which belongs to no run.
        until: Unix seconds.
    """

    counted_as: str
    channel: Channel
    tenure: Tenure | None
    until: float

    def allows(self, operation: Operation) -> bool:
        """Tell whether *operation* is among what its holder may do: write, and on ``out`` let old records go."""
        return operation is Operation.APPEND or (operation is Operation.TRIM and self.channel.io is Io.OUT)


@attrs.frozen
class _Known:
    """A verified token, good while its environment's keys are these very ones."""

    token: DirectToken
    keys: tuple[RootKey, ...]


@attrs.define
class DirectTokens:
    """Signs and verifies. What is verified is remembered until the environment's keys change."""

    _auth: Authenticator
    _clock: Clock
    _known: BoundedDict[str, _Known] = attrs.field(init=False, factory=lambda: BoundedDict(REMEMBERED), repr=False)

    async def sign(
        self,
        channel: Channel,
        tenure: Tenure,
        lifetime: timedelta,
        ends_at: datetime | None = None,
        counted_as: str | None = None,
    ) -> str:
        """Return a token for *channel* that works for *lifetime*, but not after *ends_at*.

        It is counted as *counted_as*; None: together with all others for its channel that are.
        """
        now = int(self._clock.now().timestamp())
        end = now + max(int(lifetime.total_seconds()), 1)
        claims: dict[str, Any] = {
            "use": _USE,
            "sub": channel.environment_id,
            "key": channel.key,
            "io": channel.io.value,
            "iat": now,
            "exp": end if ends_at is None else min(end, int(ends_at.timestamp())),
        }
        if channel.io is Io.OUT:
            claims |= {"run": tenure.run_version, "epoch": tenure.last_epoch}
        if counted_as is not None:
            claims[tokens.COUNTED_AS] = counted_as
        return tokens.sign(claims, await self._auth.signing_key(channel.environment_id))

    async def find(self, token: str) -> DirectToken | None:
        """Return what *token* allows now; None if it is none of ours, or works no more."""
        known = self._known.get(token)
        environment_id = _environment_of(token) if known is None else known.token.channel.environment_id
        if environment_id is None:
            return None
        keys = await self._auth.root_keys(environment_id)
        if known is None or known.keys is not keys:
            known = self._verify(token, keys)
        if known is None or known.token.until <= self._clock.now().timestamp():
            self._known.pop(token, None)
            return None
        self._known[token] = known
        return known.token

    async def is_refused(self, token: str) -> bool:
        """Tell whether *token*, which was admitted, no longer works. A silent store refuses none."""
        try:
            return await self.find(token) is None
        except UnavailableError:
            return False

    def has_admitted(self, token: str) -> bool:
        """Tell whether *token* worked when it was looked at last, so that it is no guess."""
        return token in self._known

    def _verify(self, token: str, keys: tuple[RootKey, ...]) -> _Known | None:
        now = self._clock.now()
        for key in keys:
            claims = tokens.signed_claims(token, key) if key.is_valid(now) else None
            if claims is not None and claims.get("use") == _USE:
                return self._accept(claims, key, keys)
        return None

    def _accept(self, claims: Mapping[str, Any], key: RootKey, keys: tuple[RootKey, ...]) -> _Known | None:
        end = tokens.end_of(claims, self._clock.now().timestamp())
        if end is None:
            return None
        read = _read(claims, end if key.expires_at is None else min(end, key.expires_at.timestamp()))
        return None if read is None else _Known(read, keys)


def is_direct(token: str) -> bool:
    """Tell whether *token* looks like one of these, so that it is nothing else."""
    return token.isascii() and _environment_of(token) is not None


def _environment_of(token: str) -> str | None:
    claims = tokens.peek_claims(token) if token.isascii() else None
    subject = None if claims is None or claims.get("use") != _USE else claims.get("sub")
    return subject if isinstance(subject, str) else None


def _read(claims: Mapping[str, Any], until: float) -> DirectToken | None:
    """Read what a root key has signed; None if it is not what we sign ourselves."""
    match claims:
        case {"sub": str(environment_id), "key": str(key), "io": "in"}:
            io, tenure = Io.IN, None
        case {"sub": str(environment_id), "key": str(key), "io": "out", "run": int(run), "epoch": int(epoch)}:
            io, tenure = Io.OUT, Tenure(run_version=run, last_epoch=epoch)
        case _:
            return None
    channel = Channel(EnvironmentId(environment_id), AddressingKey(key), io)
    counted_as = tokens.name_claimed(claims) or tokens.count_name(f"{io.value}:{key}")
    return DirectToken(counted_as=counted_as, channel=channel, tenure=tenure, until=until)


@attrs.frozen(kw_only=True)
class SignedDirectWrites(DirectWrites):
    """Issues credentials for our own data plane, whatever log is behind it.

    Attributes:
        address: Of this server, as clients reach it.
        counted_as: The name under which whoever asks is counted, and what it gets; None if it has none.
    """

    tokens: DirectTokens
    address: str
    lifetime: timedelta
    counted_as: str | None = None

    @property
    def is_scoped(self) -> bool:
        return True

    async def issue(self, channel: Channel, *, tenure: Tenure, ends_at: datetime | None = None) -> WriteCredentials:
        return WriteCredentials(
            token=await self.tokens.sign(channel, tenure, self.lifetime, ends_at, self.counted_as),
            basin=basin_of(channel.environment_id),
            stream=stream_of(channel),
            endpoint=self.address + API_PATH,
            flush_interval_ms=FLUSH_INTERVAL_MS,
        )
