"""Environments and keys in memory, and the ledger of used one-time tokens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
from anyio.lowlevel import checkpoint

from sessions_core.domain.environment import (
    USE_PRECISION,
    AdditionalKey,
    Environment,
    KeyGrant,
    RootKey,
    check_key,
    key_hash,
    key_id_of,
)
from sessions_core.domain.ids import AccessKeyId, EnvironmentId
from sessions_core.errors import AccessKeyNotFoundError, EnvironmentNotFoundError, InvalidError
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
    _keys: dict[AccessKeyId, AdditionalKey] = attrs.field(init=False, factory=dict, repr=False)

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
        grant, now = self._grants.get(key_hash(key)), self._clock.now()
        if grant is None or not grant.is_valid(now):
            return None
        return grant if grant.key_id is None or self._keys[grant.key_id].is_valid(now) else None

    async def find_root_keys(self, environment_id: EnvironmentId) -> Sequence[RootKey]:
        await checkpoint()
        now = self._clock.now()
        return [key for key in self._root_keys.get(environment_id, ()) if key.is_valid(now)]

    async def rotate_root_key(self, environment_id: EnvironmentId, new_key: str, *, grace: timedelta) -> None:
        await checkpoint()
        environment = self._get(environment_id)
        self._add_grant(new_key, KeyGrant(environment=environment))
        ends_at = self._clock.now() + grace
        older = [_ending(key, ends_at) for key in self._root_keys[environment_id]]
        for key in older:
            self._grants[key_hash(key.value)] = KeyGrant(environment=environment, expires_at=key.expires_at)
        self._root_keys[environment_id] = [RootKey(value=new_key), *older]

    async def reseal_root_keys(self) -> int:
        await checkpoint()
        for environment_id in self._root_keys:
            self._root_keys[environment_id] = list(await self.find_root_keys(environment_id))
        return sum(map(len, self._root_keys.values()))

    async def add_key(
        self,
        environment_id: EnvironmentId,
        key: str,
        scopes: Sequence[str],
        *,
        name: str = "",
        expires_at: datetime | None = None,
    ) -> AdditionalKey:
        await checkpoint()
        check_key(name, scopes)
        environment = self._get(environment_id)
        added = AdditionalKey(
            id=key_id_of(key_hash(key)),
            environment_id=environment_id,
            name=name,
            scopes=tuple(scopes),
            created_at=self._clock.now(),
            expires_at=expires_at,
        )
        self._add_grant(
            key, KeyGrant(environment=environment, scopes=added.scopes, expires_at=expires_at, key_id=added.id)
        )
        self._keys[added.id] = added
        return added

    async def list_keys(self, environment_id: EnvironmentId) -> list[AdditionalKey]:
        await checkpoint()
        self._get(environment_id)
        return [key for key in self._keys.values() if key.environment_id == environment_id]

    async def revoke_key(self, environment_id: EnvironmentId, key_id: AccessKeyId) -> AdditionalKey:
        await checkpoint()
        key = self._keys.get(key_id)
        if key is None or key.environment_id != environment_id:
            raise AccessKeyNotFoundError(key_id)
        if key.revoked_at is None:
            self._keys[key_id] = attrs.evolve(key, revoked_at=self._clock.now())
        return self._keys[key_id]

    async def record_use(self, environment_id: EnvironmentId, key_id: AccessKeyId) -> None:
        await checkpoint()
        key, now = self._keys.get(key_id), self._clock.now()
        if key is None or key.environment_id != environment_id:
            return
        if key.last_used_at is None or key.last_used_at <= now - USE_PRECISION:
            self._keys[key_id] = attrs.evolve(key, last_used_at=now)

    def _get(self, environment_id: EnvironmentId) -> Environment:
        environment = self._environments.get(environment_id)
        if environment is None:
            raise EnvironmentNotFoundError(environment_id)
        return environment

    def _add_grant(self, key: str, grant: KeyGrant) -> None:
        if key_hash(key) in self._grants:
            raise InvalidError("key", "exists already")
        self._grants[key_hash(key)] = grant


def _ending(key: RootKey, at: datetime) -> RootKey:
    return key if key.expires_at is not None and key.expires_at <= at else attrs.evolve(key, expires_at=at)


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
