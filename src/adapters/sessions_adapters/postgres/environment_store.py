"""Environments and their keys in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import attrs

from sessions_adapters.postgres.connecting import Connection
from sessions_adapters.postgres.database import PostgresDatabase, changed
from sessions_adapters.postgres.values import bindable, hash_of, maybe_moment
from sessions_core.domain.environment import Environment, KeyGrant, RootKey
from sessions_core.domain.ids import EnvironmentId
from sessions_core.errors import EnvironmentNotFoundError, IncompatibleStoreError, InvalidError
from sessions_core.ports.environment_store import Cipher, EnvironmentStore

INSERT_ENVIRONMENT: Final = """
    insert into environment (id, organization_id, project_id, type, created_at) values ($1, $2, $3, $4, now_or($5))
    on conflict do nothing
"""
LIST_ENVIRONMENTS: Final = "select * from environment order by created_at, number"
# The row is locked: of two rotations at once, the second one retires the first one's key.
LOCK_ENVIRONMENT: Final = "select 1 from environment where id = $1 for update"
INSERT_KEY: Final = """
    insert into access_key (hash, environment_id, scopes, sealed, created_at, expires_at)
    values ($1, $2, $3, $4, now_or($6), $5)
    on conflict do nothing
"""
RETIRE_ROOT_KEY: Final = """
    update access_key set expires_at = now_or($3) + $2 where environment_id = $1 and scopes is null and expires_at is null
"""
FIND_GRANT: Final = """
    select environment.*, access_key.scopes, access_key.expires_at
    from access_key join environment on environment.id = access_key.environment_id
    where access_key.hash = $1 and (access_key.expires_at is null or access_key.expires_at > now_or($2))
"""
FIND_ROOT_KEYS: Final = """
    select sealed, expires_at from access_key
    where environment_id = $1 and scopes is null and (expires_at is null or expires_at > now_or($2))
    order by number desc
"""
FIND_SEALED: Final = "select sealed from access_key where sealed is not null order by number desc limit 1"


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
        row = await self._db.fetchrow(FIND_GRANT, hash_of(key), self._db.at())
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

    async def add_key(
        self, environment_id: EnvironmentId, key: str, scopes: Sequence[str], *, expires_at: datetime | None = None
    ) -> None:
        async with self._db.transaction() as connection:
            await _lock(connection, environment_id)
            await self._insert_key(connection, environment_id, key, scopes=scopes, expires_at=expires_at)

    async def _insert_key(
        self,
        connection: Connection,
        environment_id: EnvironmentId,
        key: str,
        *,
        sealed: bytes | None = None,
        scopes: Sequence[str] | None = None,
        expires_at: datetime | None = None,
    ) -> None:
        values = (hash_of(key), environment_id, scopes, sealed, maybe_moment(expires_at), self._db.at())
        if not changed(await connection.execute(INSERT_KEY, *values)):
            raise InvalidError("key", "exists already")

    def _cipher(self) -> Cipher:
        if self._db.cipher is None:
            raise IncompatibleStoreError(
                "Root keys are stored encrypted, and this database was opened without an encryption key"
            )
        return self._db.cipher

    def _seal(self, root_key: str) -> bytes:
        return self._cipher().encrypt(root_key.encode())


async def find_sealed_key(db: PostgresDatabase) -> bytes | None:
    """Return the newest root key as it is stored, encrypted, or None if there is none: what a cipher can be tried on."""
    row = await db.fetchrow(FIND_SEALED)
    return None if row is None else row["sealed"]


async def _lock(connection: Connection, environment_id: EnvironmentId) -> None:
    if await connection.fetchval(LOCK_ENVIRONMENT, bindable(environment_id)) is None:
        raise EnvironmentNotFoundError(environment_id)


def _environment_of(row: asyncpg.Record) -> Environment:
    return Environment(
        id=row["id"], organization_id=row["organization_id"], project_id=row["project_id"], type=row["type"]
    )


def _grant_of(row: asyncpg.Record) -> KeyGrant:
    scopes = None if row["scopes"] is None else tuple(row["scopes"])
    return KeyGrant(environment=_environment_of(row), scopes=scopes, expires_at=row["expires_at"])


def _root_key_of(row: asyncpg.Record, cipher: Cipher) -> RootKey:
    return RootKey(value=cipher.decrypt(row["sealed"]).decode(), expires_at=row["expires_at"])
