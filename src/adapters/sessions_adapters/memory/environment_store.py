"""Environments and keys in memory, and the ledger of used one-time tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
from anyio.lowlevel import checkpoint

from sessions_core.domain.environment import Environment, KeyGrant, RootKey
from sessions_core.domain.ids import EnvironmentId
from sessions_core.errors import EnvironmentNotFoundError, InvalidError
from sessions_core.ports.clock import Clock
from sessions_core.ports.environment_store import EnvironmentStore, TokenLedger


@attrs.define(eq=False)
class InMemoryEnvironmentStore(EnvironmentStore):
    """Keeps environments in dictionaries. Nothing is ever at rest, so root keys are not encrypted."""

    _clock: Clock
    _environments: dict[EnvironmentId, Environment] = attrs.field(init=False, factory=dict, repr=False)
    _root_keys: dict[EnvironmentId, list[RootKey]] = attrs.field(init=False, factory=dict, repr=False)
    """Newest first."""
    _grants: dict[str, KeyGrant] = attrs.field(init=False, factory=dict, repr=False)
    """By the key's hash."""

    async def create(self, environment: Environment, root_key: str) -> None:
        await checkpoint()
        if environment.id in self._environments:
            raise InvalidError("id", "exists already")
        self._add_grant(root_key, KeyGrant(environment=environment))
        self._environments[environment.id] = environment
        self._root_keys[environment.id] = [RootKey(value=root_key)]

    async def list_all(self) -> list[Environment]:
        await checkpoint()
        return list(self._environments.values())

    async def find_grant(self, key: str) -> KeyGrant | None:
        await checkpoint()
        grant = self._grants.get(_hash(key))
        return grant if grant is not None and grant.is_valid(self._clock.now()) else None

    async def find_root_keys(self, environment_id: EnvironmentId) -> Sequence[RootKey]:
        await checkpoint()
        now = self._clock.now()
        return [key for key in self._root_keys.get(environment_id, ()) if key.is_valid(now)]

    async def rotate_root_key(self, environment_id: EnvironmentId, new_key: str, *, grace: timedelta) -> None:
        await checkpoint()
        environment = self._get(environment_id)
        self._add_grant(new_key, KeyGrant(environment=environment))
        current, *older = self._root_keys[environment_id]
        ends_at = self._clock.now() + grace
        self._grants[_hash(current.value)] = KeyGrant(environment=environment, expires_at=ends_at)
        rotated = RootKey(value=current.value, expires_at=ends_at)
        self._root_keys[environment_id] = [RootKey(value=new_key), rotated, *older]

    async def add_key(
        self, environment_id: EnvironmentId, key: str, scopes: Sequence[str], *, expires_at: datetime | None = None
    ) -> None:
        await checkpoint()
        environment = self._get(environment_id)
        self._add_grant(key, KeyGrant(environment=environment, scopes=tuple(scopes), expires_at=expires_at))

    def _get(self, environment_id: EnvironmentId) -> Environment:
        environment = self._environments.get(environment_id)
        if environment is None:
            raise EnvironmentNotFoundError(environment_id)
        return environment

    def _add_grant(self, key: str, grant: KeyGrant) -> None:
        if _hash(key) in self._grants:
            raise InvalidError("key", "exists already")
        self._grants[_hash(key)] = grant


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


@attrs.define(eq=False)
class InMemoryTokenLedger(TokenLedger):
    """Remembers used tokens until they would be refused for their age anyway."""

    _clock: Clock
    _used: dict[tuple[EnvironmentId, str], datetime] = attrs.field(init=False, factory=dict, repr=False)

    async def consume(self, environment_id: EnvironmentId, token_hash: str, expires_at: datetime) -> bool:
        await checkpoint()
        now = self._clock.now()
        self._used = {token: until for token, until in self._used.items() if until > now}
        if (environment_id, token_hash) in self._used:
            return False
        self._used[environment_id, token_hash] = expires_at
        return True
