"""Environments and their keys in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import attrs

from sessions_adapters.postgres.connecting import Connection
from sessions_adapters.postgres.database import PostgresDatabase, changed
from sessions_adapters.postgres.values import bindable, maybe_moment
from sessions_core.domain.environment import (
    USE_PRECISION,
    AdditionalKey,
    Environment,
    KeyGrant,
    RootKey,
    check_key,
    hash_range,
    key_hash,
    key_id_of,
)
from sessions_core.domain.ids import AccessKeyId, EnvironmentId
from sessions_core.errors import (
    AccessKeyNotFoundError,
    EnvironmentNotFoundError,
    IncompatibleStoreError,
    InvalidError,
)
from sessions_core.ports.environment_store import Cipher, EnvironmentStore

INSERT_ENVIRONMENT: Final = """
    insert into environment (id, organization_id, project_id, type, created_at) values ($1, $2, $3, $4, now_or($5))
    on conflict do nothing
"""
LIST_ENVIRONMENTS: Final = "select * from environment order by created_at, number"
# The row is locked: of two rotations at once, the second one retires the first one's key.
LOCK_ENVIRONMENT: Final = "select 1 from environment where id = $1 for update"
INSERT_KEY: Final = """
    insert into access_key (hash, environment_id, name, scopes, sealed, created_at, expires_at)
    values ($1, $2, $3, $4, $5, now_or($7), $6)
    on conflict do nothing
    returning *
"""
RETIRE_ROOT_KEY: Final = """
    update access_key set expires_at = now_or($3) + $2
    where environment_id = $1 and scopes is null and (expires_at is null or expires_at > now_or($3) + $2)
"""
FIND_GRANT: Final = """
    select environment.*, access_key.hash, access_key.scopes, access_key.expires_at
    from access_key join environment on environment.id = access_key.environment_id
    where access_key.hash = $1 and (access_key.expires_at is null or access_key.expires_at > now_or($2))
        and access_key.revoked_at is null
"""
FIND_ROOT_KEYS: Final = """
    select sealed, expires_at from access_key
    where environment_id = $1 and scopes is null and (expires_at is null or expires_at > now_or($2))
    order by number desc
"""
# What was encrypted before and after the encryption key last changed, if that did not reach all.
FIND_SEALED: Final = """
    select sealed from access_key where number in (
        select min(number) from access_key where sealed is not null
        union all select max(number) from access_key where sealed is not null
    )
"""
LIST_SEALED: Final = "select hash, sealed from access_key where sealed is not null order by number for update"
RESEAL: Final = "update access_key set sealed = $2 where hash = $1"
FORGET_ROOT_KEYS: Final = """
    update access_key set sealed = null where scopes is null and sealed is not null and expires_at <= now_or($1)
"""
HAS_ENVIRONMENT: Final = "select true from environment where id = $1"
LIST_KEYS: Final = (
    "select * from access_key where environment_id = $1 and scopes is not null order by created_at, number"
)
REVOKE_KEY: Final = """
    update access_key set revoked_at = coalesce(revoked_at, now_or($4))
    where hash between $2 and $3 and environment_id = $1 and scopes is not null
    returning *
"""
RECORD_USE: Final = """
    update access_key set last_used_at = now_or($4)
    where hash between $2 and $3 and environment_id = $1 and scopes is not null
        and (last_used_at is null or last_used_at <= now_or($4) - $5::interval)
"""


@attrs.define
class PostgresEnvironmentStore(EnvironmentStore):
    """Keeps environments and keys in tables.

    Root keys are encrypted by the database's cipher; without one, none can be stored or read.
    """

    _db: PostgresDatabase

    async def create(self, environment: Environment, root_key: str) -> None:
        sealed = self._seal(root_key)
        values = (environment.id, environment.organization_id, environment.project_id, environment.type.value)
        async with self._db.transaction() as connection:
            if not changed(await connection.execute(INSERT_ENVIRONMENT, *values, self._db.at())):
                raise InvalidError("id", "exists already")
            await self._insert_key(connection, environment.id, root_key, sealed=sealed)

    async def list_all(self) -> list[Environment]:
        return [_environment_of(row) for row in await self._db.fetch(LIST_ENVIRONMENTS)]

    async def find_grant(self, key: str) -> KeyGrant | None:
        row = await self._db.fetchrow(FIND_GRANT, key_hash(key), self._db.at())
        return None if row is None else _grant_of(row)

    async def find_root_keys(self, environment_id: EnvironmentId) -> Sequence[RootKey]:
        cipher = self._cipher()
        rows = await self._db.fetch(FIND_ROOT_KEYS, bindable(environment_id), self._db.at())
        return [_root_key_of(row, cipher) for row in rows]

    async def rotate_root_key(self, environment_id: EnvironmentId, new_key: str, *, grace: timedelta) -> None:
        sealed = self._seal(new_key)
        async with self._db.transaction() as connection:
            await _lock(connection, environment_id)
            await connection.execute(RETIRE_ROOT_KEY, environment_id, grace, self._db.at())
            await self._insert_key(connection, environment_id, new_key, sealed=sealed)

    async def reseal_root_keys(self) -> int:
        cipher = self._cipher()
        async with self._db.transaction() as connection:
            await connection.execute(FORGET_ROOT_KEYS, self._db.at())
            rows = await connection.fetch(LIST_SEALED)
            resealed = [(row["hash"], cipher.encrypt(cipher.decrypt(row["sealed"]))) for row in rows]
            await connection.executemany(RESEAL, resealed)
            return len(resealed)

    async def add_key(
        self,
        environment_id: EnvironmentId,
        key: str,
        scopes: Sequence[str],
        *,
        name: str = "",
        expires_at: datetime | None = None,
    ) -> AdditionalKey:
        check_key(name, scopes)
        async with self._db.transaction() as connection:
            await _lock(connection, environment_id)
            row = await self._insert_key(
                connection, environment_id, key, name=name, scopes=scopes, expires_at=expires_at
            )
        return _additional_key_of(row)

    async def list_keys(self, environment_id: EnvironmentId) -> list[AdditionalKey]:
        rows = await self._db.fetch(LIST_KEYS, bindable(environment_id))
        if not rows and await self._db.fetchrow(HAS_ENVIRONMENT, bindable(environment_id)) is None:
            raise EnvironmentNotFoundError(environment_id)
        return [_additional_key_of(row) for row in rows]

    async def revoke_key(self, environment_id: EnvironmentId, key_id: AccessKeyId) -> AdditionalKey:
        hashes = hash_range(key_id)
        if hashes is not None:
            for row in await self._db.change(REVOKE_KEY, bindable(environment_id), *hashes, self._db.at()):
                return _additional_key_of(row)
        raise AccessKeyNotFoundError(key_id)

    async def record_use(self, environment_id: EnvironmentId, key_id: AccessKeyId) -> None:
        hashes = hash_range(key_id)
        if hashes is not None:
            await self._db.execute(RECORD_USE, bindable(environment_id), *hashes, self._db.at(), USE_PRECISION)

    async def _insert_key(
        self,
        connection: Connection,
        environment_id: EnvironmentId,
        key: str,
        *,
        name: str = "",
        sealed: bytes | None = None,
        scopes: Sequence[str] | None = None,
        expires_at: datetime | None = None,
    ) -> asyncpg.Record:
        values = (key_hash(key), environment_id, name, scopes, sealed, maybe_moment(expires_at), self._db.at())
        row = await connection.fetchrow(INSERT_KEY, *values)
        if row is None:
            raise InvalidError("key", "exists already")
        return row

    def _cipher(self) -> Cipher:
        if self._db.cipher is None:
            raise IncompatibleStoreError(
                "Root keys are stored encrypted, and this database was opened without an encryption key"
            )
        return self._db.cipher

    def _seal(self, root_key: str) -> bytes:
        return self._cipher().encrypt(root_key.encode())


async def find_sealed_keys(db: PostgresDatabase) -> list[bytes]:
    """Return the oldest and the newest root key as they are stored, encrypted: what a cipher can be tried on."""
    return [row["sealed"] for row in await db.fetch(FIND_SEALED)]


async def _lock(connection: Connection, environment_id: EnvironmentId) -> None:
    if await connection.fetchval(LOCK_ENVIRONMENT, bindable(environment_id)) is None:
        raise EnvironmentNotFoundError(environment_id)


def _environment_of(row: asyncpg.Record) -> Environment:
    return Environment(
        id=row["id"], organization_id=row["organization_id"], project_id=row["project_id"], type=row["type"]
    )


def _grant_of(row: asyncpg.Record) -> KeyGrant:
    is_root = row["scopes"] is None
    return KeyGrant(
        environment=_environment_of(row),
        scopes=None if is_root else tuple(row["scopes"]),
        expires_at=row["expires_at"],
        key_id=None if is_root else key_id_of(row["hash"]),
    )


def _additional_key_of(row: asyncpg.Record) -> AdditionalKey:
    return AdditionalKey(
        id=key_id_of(row["hash"]),
        environment_id=EnvironmentId(row["environment_id"]),
        name=row["name"],
        scopes=tuple(row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
    )


def _root_key_of(row: asyncpg.Record, cipher: Cipher) -> RootKey:
    return RootKey(value=cipher.decrypt(row["sealed"]).decode(), expires_at=row["expires_at"])
