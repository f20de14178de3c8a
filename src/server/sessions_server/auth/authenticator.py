"""From the ``Authorization`` header to the caller.

How this works
--------------
A public token names its environment and is verified with that environment's root keys; everything else is looked up as
a key. Both are remembered, so a warm request costs a dictionary look-up: verified tokens for as long as they hold and
their environment's root keys stay the same, keys and root keys for one second, so that what another process adds,
rotates, revokes or lets expire counts here within that time. Times of validity are compared on every request. When the
second is over, one of those who come asks the store, and its answer is that of all others who wait, also if it is silence.

A second is long enough to ask for a token. One that is signed with a key from after a rotation must not go to whoever shows one
from before it, or it would outlive it; so what is handed out is preceded by a look at the caller that is no older than that key.

No secret is compared with another here: keys are found by their hash, and a signature is compared in constant time by the
library that computes it. What is remembered is found in a dictionary, whose hash nobody outside can predict.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import attrs

from sessions_core.domain.access import Credential
from sessions_core.domain.bounded import BoundedDict
from sessions_core.domain.environment import Environment, KeyGrant, RootKey
from sessions_core.domain.ids import EnvironmentId
from sessions_core.errors import StoreUnavailableError, UnavailableError
from sessions_core.ports.clock import Clock
from sessions_core.ports.environment_store import EnvironmentStore, TokenLedger
from sessions_server.auth import tokens
from sessions_server.auth.caller import Caller
from sessions_server.auth.key_uses import KeyUses
from sessions_server.auth.questions import Questions
from sessions_server.problems import UnauthenticatedError

KEY_SECONDS: Final = 1.0
REMEMBERED: Final = 10_000
_BEARER: Final = "Bearer "


@attrs.frozen
class _Ring:
    """An environment's root keys as they were at a moment of the monotonic clock."""

    environment: Environment | None
    keys: tuple[RootKey, ...]
    read_at: float


@attrs.frozen
class _KnownToken:
    """A verified token, good while its environment's keys are these very ones."""

    caller: Caller
    keys: tuple[RootKey, ...]
    until: float


@attrs.frozen
class _KnownKey:
    """A key's grant as it was at a moment of the monotonic clock."""

    caller: Caller
    grant: KeyGrant
    read_at: float


@attrs.define(kw_only=True)
class Authenticator:
    """Tells callers apart, and signs tokens.

    Attributes:
        uses: Remembers when additional keys are used.
    """

    environments: EnvironmentStore
    ledger: TokenLedger
    clock: Clock
    monotonic: Callable[[], float] = time.monotonic
    uses: KeyUses = attrs.field(init=False)
    _rings: BoundedDict[str, _Ring] = attrs.field(init=False, factory=lambda: BoundedDict(REMEMBERED))
    _tokens: BoundedDict[str, _KnownToken] = attrs.field(
        init=False, factory=lambda: BoundedDict(REMEMBERED), repr=False
    )
    _keys: BoundedDict[str, _KnownKey] = attrs.field(init=False, factory=lambda: BoundedDict(REMEMBERED), repr=False)
    _questions: Questions = attrs.field(init=False, factory=Questions)

    @uses.default
    def _make_uses(self) -> KeyUses:
        return KeyUses(self.environments, self.monotonic)

    def recall(self, header: str | None, since: float = -math.inf) -> Caller | None:
        """Return the caller if it is known and still valid, without asking anybody; *since* as in :meth:`authenticate`."""
        if header is None:
            return None
        header, now = _spelled(header), self.monotonic()
        if (token := self._tokens.get(header)) is not None:
            ring = self._rings.get(token.caller.environment.id)
            fresh = ring is not None and ring.keys is token.keys and max(now - KEY_SECONDS, since) <= ring.read_at
            return token.caller if fresh and self._now() < token.until else None
        if (key := self._keys.get(header)) is not None and max(now - KEY_SECONDS, since) <= key.read_at:
            end = key.caller.expires_at
            return key.caller if end is None or self._now() < end else None
        return None

    def has_admitted(self, header: str) -> bool:
        """Tell whether the credential worked when it was looked at last, so that it is no guess."""
        credential = _spelled(header)
        return credential in self._tokens or credential in self._keys

    async def authenticate(self, header: str | None, since: float = -math.inf) -> Caller:
        """Return the caller.

        Args:
            header: What is shown.
            since: A moment of the monotonic clock; what the store said before that does not count.

        Raises:
            UnauthenticatedError: No credential, or one that does not work here and now.
        """
        if (known := self.recall(header, since)) is not None:
            return known
        header = _spelled(header or "")
        credential = header.removeprefix(_BEARER)
        if not credential:
            raise UnauthenticatedError
        environment_id = tokens.peek_environment(credential) if credential.isascii() else None
        if environment_id is not None:
            return await self._by_token(header, credential, environment_id, since)
        return await self._by_key(header, credential, since)

    async def confirm(self, header: str | None) -> Caller:
        """Return the caller by what the store says from now on.

        Raises:
            UnauthenticatedError: The credential does not work.
            UnavailableError: The store is silent.
        """
        return await self.authenticate(header, self.monotonic())

    async def still_lasts(self, header: str | None) -> bool:
        """Tell whether a credential works by what the store says from now on, and :attr:`~.Caller.lasts`. Silence confirms nothing.

        Asked before its holder is shown a token that may be signed with the key that has just replaced the credential's own.
        """
        try:
            return (await self.confirm(header)).lasts
        except (UnauthenticatedError, UnavailableError):
            return False

    async def is_refused(self, header: str) -> bool:
        """Tell whether a credential that was admitted no longer works: revoked, rotated or over. A silent store refuses none."""
        try:
            await self.authenticate(header)
        except UnauthenticatedError:
            return True
        except UnavailableError:
            return False
        return False

    async def use_up(self, caller: Caller) -> None:
        """Count the one use of a one-time token; for other callers nothing happens.

        Raises:
            UnauthenticatedError: It was used before.
        """
        if caller.one_time is None:
            return
        assert caller.ends_at is not None
        if not await self.ledger.consume(caller.environment.id, caller.one_time, caller.ends_at):
            raise UnauthenticatedError("Public Access Token has been used")

    async def mint(
        self,
        caller: Caller,
        scopes: Sequence[str],
        lifetime: timedelta,
        extra: dict[str, Any] | None = None,
        *,
        is_rolling: bool = False,
    ) -> str:
        """Return a public token of *caller*'s environment, signed with its current root key.

        It works for *lifetime*, but never longer than the caller's own credential as it is now; what a public token gets is
        counted as that token, whatever *extra* says, so that nobody gets more permits by asking for tokens. If it *is_rolling*, its
        holder may have a fresh one before it ends, unless the caller's credential has an end of its own.

        Raises:
            UnauthenticatedError: The caller's credential no longer works.
        """
        environment_id = caller.environment.id
        ring = await self._ring(environment_id)
        current = _current_of(ring)
        if caller.header is not None:
            is_revocable = caller.credential is Credential.ADDITIONAL_KEY
            caller = await self.authenticate(caller.header, self.monotonic() if is_revocable else ring.read_at)
        now = int(self._now())
        end = now + max(int(lifetime.total_seconds()), 1)
        if caller.expires_at is not None:
            end = min(end, int(caller.expires_at))
        claims = dict(extra or {})
        if is_rolling and caller.expires_at is None:
            claims[tokens.ROLLING] = True
        if caller.counted_as is not None:
            claims[tokens.COUNTED_AS] = caller.counted_as
        return tokens.mint(environment_id, scopes, current, start=now, end=end, extra=claims)

    async def root_keys(self, environment_id: str) -> tuple[RootKey, ...]:
        """Return the root keys of an environment as they were at most a second ago; none if there is no such environment.

        It is the same object as long as they are the same.
        """
        return (await self._ring(environment_id)).keys

    async def signing_key(self, environment_id: str) -> RootKey:
        """Return the root key that new tokens of an environment are signed with.

        Raises:
            StoreUnavailableError: There is none.
        """
        return _current_of(await self._ring(environment_id))

    async def _by_token(self, header: str, token: str, environment_id: str, since: float) -> Caller:
        ring = await self._ring(environment_id, since)
        if ring.environment is None:
            raise UnauthenticatedError("Invalid Public Access Token")
        if (known := self.recall(header, since)) is not None:  # Verified before, and the keys are still the same.
            return known
        verified = tokens.verify(token, ring.environment, ring.keys, self.clock.now())
        if verified is None:
            self._tokens.pop(header, None)
            raise UnauthenticatedError("Public Access Token is invalid")
        key_end = verified.key.expires_at
        until = verified.expires_at if key_end is None else min(verified.expires_at, key_end.timestamp())
        caller = Caller(
            credential=Credential.PUBLIC_TOKEN,
            environment=verified.environment,
            header=header,
            counted_as=verified.counted_as,
            scopes=verified.scopes,
            expires_at=until,
            one_time=verified.one_time,
            is_rolling=verified.is_rolling,
        )
        self._tokens[header] = _KnownToken(caller, ring.keys, until)
        return caller

    async def _by_key(self, header: str, key: str, since: float) -> Caller:
        return await self._questions.about(f"key {header}").ask(lambda: self._current_grant(header, key, since))

    async def _current_grant(self, header: str, key: str, since: float) -> Caller:
        return self.recall(header, since) or await self._look_up(header, key)

    async def _look_up(self, header: str, key: str) -> Caller:
        read_at = self.monotonic()
        grant = await self.environments.find_grant(key) if key.isascii() and "\x00" not in key else None
        if grant is None or not grant.is_valid(self.clock.now()):
            self._keys.pop(header, None)
            raise UnauthenticatedError("Invalid API key")
        self.uses.note(grant)
        known = self._keys.get(header)
        caller = known.caller if known is not None and known.grant == grant else _caller_with(grant, header)
        self._keys[header] = _KnownKey(caller, grant, read_at)
        return caller

    async def _ring(self, environment_id: str, since: float = -math.inf) -> _Ring:
        known = self._known_ring(environment_id, since)
        if known is not None:  # as for each batch of a direct writer
            return known
        return await self._questions.about(f"ring {environment_id}").ask(
            lambda: self._current_ring(environment_id, since)
        )

    def _known_ring(self, environment_id: str, since: float) -> _Ring | None:
        known = self._rings.get(environment_id)
        return known if known is not None and max(self.monotonic() - KEY_SECONDS, since) <= known.read_at else None

    async def _current_ring(self, environment_id: str, since: float) -> _Ring:
        fresh = self._known_ring(environment_id, since)
        if fresh is not None:
            return fresh
        known, read_at = self._rings.get(environment_id), self.monotonic()
        ring = await self._read_ring(environment_id, read_at)
        if ring.environment is None:
            return ring
        if known is not None and known.keys == ring.keys:
            ring = attrs.evolve(ring, keys=known.keys)
        self._rings[environment_id] = ring
        return ring

    async def _read_ring(self, environment_id: str, read_at: float) -> _Ring:
        if not environment_id or "\x00" in environment_id or not environment_id.isascii():
            return _Ring(None, (), read_at)
        keys = tuple(await self.environments.find_root_keys(EnvironmentId(environment_id)))
        grant = await self.environments.find_grant(keys[0].value) if keys else None
        return _Ring(None if grant is None else grant.environment, keys, read_at)

    def _now(self) -> float:
        return self.clock.now().timestamp()


def _spelled(header: str) -> str:
    """Return the one spelling of a header under which its credential is remembered."""
    return _BEARER + header.removeprefix(_BEARER).strip()


def _current_of(ring: _Ring) -> RootKey:
    current = next((key for key in ring.keys if key.expires_at is None), None)
    if current is None:
        raise StoreUnavailableError("environment's root key")
    return current


def _caller_with(grant: KeyGrant, header: str) -> Caller:
    return Caller(
        credential=Credential.ROOT_KEY if grant.scopes is None else Credential.ADDITIONAL_KEY,
        environment=grant.environment,
        header=header,
        scopes=grant.scopes,
        expires_at=None if grant.expires_at is None else grant.expires_at.timestamp(),
    )
