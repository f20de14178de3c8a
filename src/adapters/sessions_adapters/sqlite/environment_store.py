"""Environments, their keys, and used one-time tokens in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

import attrs

from sessions_adapters.sqlite.database import SqliteDatabase, for_owner
from sessions_adapters.sqlite.values import (
    MILLISECOND,
    bindable,
    from_ms,
    json_list,
    maybe_moment,
    maybe_ms,
    to_ms,
    to_ms_up,
)
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
from sessions_core.ports.environment_store import Cipher, EnvironmentStore, TokenLedger

T = TypeVar("T")

INSERT_ENVIRONMENT: Final = """
    insert or ignore into environment (id, organization, project, type, created_at) values (?, ?, ?, ?, ?)
"""
LIST_ENVIRONMENTS: Final = "select * from environment order by created_at, rowid"
HAS_ENVIRONMENT: Final = "select 1 from environment where id = ?"
INSERT_KEY: Final = """
    insert or ignore into access_key (hash, environment, name, scopes, sealed, created_at, expires_at)
    values (:hash, :environment, :name, :scopes, :sealed, :now, :expires_at)
"""
RETIRE_ROOT_KEY: Final = """
    update access_key set expires_at = :ends_at
    where environment = :environment and scopes is null and (expires_at is null or expires_at > :ends_at)
"""
FIND_GRANT: Final = """
    select environment.*, access_key.hash, access_key.scopes, access_key.expires_at
    from access_key cross join environment on environment.id = access_key.environment
    where access_key.hash = ? and access_key.revoked_at is null
"""
FIND_ROOT_KEYS: Final = """
    select sealed, expires_at from access_key
    where environment = ? and scopes is null and (expires_at is null or expires_at > ?)
    order by rowid desc
"""
# What was encrypted before and after the encryption key last changed, if that did not reach all.
FIND_SEALED: Final = """
    select sealed from access_key where rowid in (
        select min(rowid) from access_key where sealed is not null
        union all select max(rowid) from access_key where sealed is not null
    )
"""
LIST_SEALED: Final = "select hash, sealed from access_key where sealed is not null"
RESEAL: Final = "update access_key set sealed = ? where hash = ?"
FORGET_ROOT_KEYS: Final = """
    update access_key set sealed = null where scopes is null and sealed is not null and expires_at <= ?
"""
LIST_KEYS: Final = "select * from access_key where environment = ? and scopes is not null order by created_at, rowid"
REVOKE_KEY: Final = """
    update access_key set revoked_at = coalesce(revoked_at, :now)
    where hash between :least and :most and environment = :environment and scopes is not null
    returning *
"""
RECORD_USE: Final = """
    update access_key set last_used_at = :now
    where hash between :least and :most and environment = :environment and scopes is not null
        and (last_used_at is null or last_used_at <= :before)
"""
CONSUME: Final = """
    insert into used_token (environment, hash, expires_at) values (:environment, :hash, :expires_at)
    on conflict (environment, hash) do update set expires_at = excluded.expires_at where expires_at <= :now
"""
FORGET_TOKENS: Final = """
    delete from used_token where (environment, hash) in (
        select environment, hash from used_token where expires_at <= ? limit 16
    )
"""


@attrs.define
class SqliteEnvironmentStore(EnvironmentStore):
    """Keeps environments and keys in tables; may be used beside the process that owns the data.

    Root keys are encrypted by the database's cipher; without one, none can be stored or read.
    """

    _db: SqliteDatabase

    async def create(self, environment: Environment, root_key: str) -> None:
        sealed = self._seal(root_key)

        def create(connection: sqlite3.Connection) -> None:
            now = self._db.now_ms()
            values = (environment.id, environment.organization_id, environment.project_id, environment.type.value, now)
            if not connection.execute(INSERT_ENVIRONMENT, values).rowcount:
                raise InvalidError("id", "exists already")
            _insert_key(connection, environment.id, root_key, now, sealed=sealed)

        await self._db.write(create)

    async def list_all(self) -> list[Environment]:
        return await self._db.read(lambda c: [_environment_of(row) for row in c.execute(LIST_ENVIRONMENTS)])

    async def find_grant(self, key: str) -> KeyGrant | None:
        row = await self._db.read(lambda c: c.execute(FIND_GRANT, (key_hash(key),)).fetchone())
        grant = None if row is None else _grant_of(row)
        return grant if grant is not None and grant.is_valid(self._db.now()) else None

    async def find_root_keys(self, environment_id: EnvironmentId) -> Sequence[RootKey]:
        cipher = self._cipher()
        values = (bindable(environment_id), self._db.now_ms())
        rows = await self._db.read(lambda c: c.execute(FIND_ROOT_KEYS, values).fetchall())
        return [_root_key_of(row, cipher) for row in rows]

    async def rotate_root_key(self, environment_id: EnvironmentId, new_key: str, *, grace: timedelta) -> None:
        sealed = self._seal(new_key)

        def rotate(connection: sqlite3.Connection, now: int) -> None:
            ends_at = to_ms(self._db.now() + grace)
            connection.execute(RETIRE_ROOT_KEY, {"environment": environment_id, "ends_at": ends_at})
            _insert_key(connection, environment_id, new_key, now, sealed=sealed)

        await self._write_in(environment_id, rotate)

    async def reseal_root_keys(self) -> int:
        cipher = self._cipher()

        def reseal(connection: sqlite3.Connection) -> int:
            connection.execute(FORGET_ROOT_KEYS, (self._db.now_ms(),))
            rows = connection.execute(LIST_SEALED).fetchall()
            connection.executemany(RESEAL, [(cipher.encrypt(cipher.decrypt(sealed)), key) for key, sealed in rows])
            return len(rows)

        return await self._db.write(reseal)

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

        def add(connection: sqlite3.Connection, now: int) -> AdditionalKey:
            ends_at = maybe_ms(expires_at)
            _insert_key(connection, environment_id, key, now, name=name, scopes=scopes, expires_at=ends_at)
            return AdditionalKey(
                id=key_id_of(key_hash(key)),
                environment_id=environment_id,
                name=name,
                scopes=tuple(scopes),
                created_at=from_ms(now),
                expires_at=maybe_moment(ends_at),
            )

        return await self._write_in(environment_id, add)

    async def list_keys(self, environment_id: EnvironmentId) -> list[AdditionalKey]:
        def find(connection: sqlite3.Connection) -> list[sqlite3.Row]:
            _need_environment(connection, environment_id)
            return connection.execute(LIST_KEYS, (environment_id,)).fetchall()

        return [_additional_key_of(row) for row in await self._db.read(find)]

    async def revoke_key(self, environment_id: EnvironmentId, key_id: AccessKeyId) -> AdditionalKey:
        row = await self._update_key(REVOKE_KEY, environment_id, key_id)
        if row is None:
            raise AccessKeyNotFoundError(key_id)
        return _additional_key_of(row)

    async def record_use(self, environment_id: EnvironmentId, key_id: AccessKeyId) -> None:
        await self._update_key(RECORD_USE, environment_id, key_id)

    async def _update_key(
        self, statement: str, environment_id: EnvironmentId, key_id: AccessKeyId
    ) -> sqlite3.Row | None:
        hashes = hash_range(key_id)
        if hashes is None:
            return None
        least, most = hashes

        def update(connection: sqlite3.Connection) -> sqlite3.Row | None:
            now = self._db.now_ms()
            values = {"now": now, "before": now - USE_PRECISION // MILLISECOND, "least": least, "most": most}
            row: sqlite3.Row | None = connection.execute(
                statement, values | {"environment": bindable(environment_id)}
            ).fetchone()
            return row

        return await self._db.write(update)

    async def _write_in(self, environment_id: EnvironmentId, act: Callable[[sqlite3.Connection, int], T]) -> T:
        def run(connection: sqlite3.Connection) -> T:
            _need_environment(connection, environment_id)
            return act(connection, self._db.now_ms())

        return await self._db.write(run)

    def _cipher(self) -> Cipher:
        if self._db.cipher is None:
            raise IncompatibleStoreError(
                "Root keys are stored encrypted, and this database was opened without an encryption key"
            )
        return self._db.cipher

    def _seal(self, root_key: str) -> bytes:
        return self._cipher().encrypt(root_key.encode())


async def find_sealed_keys(db: SqliteDatabase) -> list[bytes]:
    """Return the oldest and the newest root key as they are stored, encrypted: what a cipher can be tried on."""
    return await db.read(lambda c: [row["sealed"] for row in c.execute(FIND_SEALED)])


def _need_environment(connection: sqlite3.Connection, environment_id: EnvironmentId) -> None:
    if connection.execute(HAS_ENVIRONMENT, (bindable(environment_id),)).fetchone() is None:
        raise EnvironmentNotFoundError(environment_id)


def _insert_key(
    connection: sqlite3.Connection,
    environment_id: EnvironmentId,
    key: str,
    now: int,
    *,
    name: str = "",
    sealed: bytes | None = None,
    scopes: Sequence[str] | None = None,
    expires_at: int | None = None,
) -> None:
    values = {
        "hash": key_hash(key),
        "environment": environment_id,
        "name": name,
        "scopes": None if scopes is None else json_list(scopes),
        "sealed": sealed,
        "now": now,
        "expires_at": expires_at,
    }
    if not connection.execute(INSERT_KEY, values).rowcount:
        raise InvalidError("key", "exists already")


def _environment_of(row: sqlite3.Row) -> Environment:
    return Environment(id=row["id"], organization_id=row["organization"], project_id=row["project"], type=row["type"])


def _grant_of(row: sqlite3.Row) -> KeyGrant:
    return KeyGrant(
        environment=_environment_of(row),
        scopes=None if row["scopes"] is None else tuple(json.loads(row["scopes"])),
        expires_at=maybe_moment(row["expires_at"]),
        key_id=None if row["scopes"] is None else key_id_of(row["hash"]),
    )


def _additional_key_of(row: sqlite3.Row) -> AdditionalKey:
    return AdditionalKey(
        id=key_id_of(row["hash"]),
        environment_id=EnvironmentId(row["environment"]),
        name=row["name"],
        scopes=tuple(json.loads(row["scopes"])),
        created_at=from_ms(row["created_at"]),
        expires_at=maybe_moment(row["expires_at"]),
        revoked_at=maybe_moment(row["revoked_at"]),
        last_used_at=maybe_moment(row["last_used_at"]),
    )


def _root_key_of(row: sqlite3.Row, cipher: Cipher) -> RootKey:
    return RootKey(value=cipher.decrypt(row["sealed"]).decode(), expires_at=maybe_moment(row["expires_at"]))


@attrs.define
class SqliteTokenLedger(TokenLedger):
    """Keeps used one-time tokens until they would be refused for their age anyway."""

    _db: SqliteDatabase = attrs.field(validator=for_owner)

    async def consume(self, environment_id: EnvironmentId, token_hash: str, expires_at: datetime) -> bool:
        def consume(connection: sqlite3.Connection) -> bool:
            now = self._db.now_ms()
            connection.execute(FORGET_TOKENS, (now,))
            values = {
                "environment": environment_id,
                "hash": token_hash,
                "expires_at": to_ms_up(expires_at),
                "now": now,
            }
            return connection.execute(CONSUME, values).rowcount > 0

        return await self._db.write(consume)
