"""Environments, their keys, and used one-time tokens in SQLite."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs

from sessions_adapters.sqlite.database import SqliteDatabase, for_owner
from sessions_adapters.sqlite.values import bindable, json_list, maybe_moment, maybe_ms, to_ms, to_ms_up
from sessions_core.domain.environment import Environment, KeyGrant, RootKey
from sessions_core.domain.ids import EnvironmentId
from sessions_core.errors import EnvironmentNotFoundError, IncompatibleStoreError, InvalidError
from sessions_core.ports.environment_store import Cipher, EnvironmentStore, TokenLedger

INSERT_ENVIRONMENT: Final = """
    insert or ignore into environment (id, organization, project, type, created_at) values (?, ?, ?, ?, ?)
"""
LIST_ENVIRONMENTS: Final = "select * from environment order by created_at, rowid"
HAS_ENVIRONMENT: Final = "select 1 from environment where id = ?"
INSERT_KEY: Final = """
    insert or ignore into access_key (hash, environment, scopes, sealed, created_at, expires_at)
    values (:hash, :environment, :scopes, :sealed, :now, :expires_at)
"""
RETIRE_ROOT_KEY: Final = """
    update access_key set expires_at = ? where environment = ? and scopes is null and expires_at is null
"""
FIND_GRANT: Final = """
    select environment.*, access_key.scopes, access_key.expires_at
    from access_key cross join environment on environment.id = access_key.environment
    where access_key.hash = ?
"""
FIND_ROOT_KEYS: Final = """
    select sealed, expires_at from access_key
    where environment = ? and scopes is null and (expires_at is null or expires_at > ?)
    order by rowid desc
"""
FIND_SEALED: Final = "select sealed from access_key where sealed is not null order by rowid desc limit 1"
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
        row = await self._db.read(lambda c: c.execute(FIND_GRANT, (_hash(key),)).fetchone())
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
            connection.execute(RETIRE_ROOT_KEY, (to_ms(self._db.now() + grace), environment_id))
            _insert_key(connection, environment_id, new_key, now, sealed=sealed)

        await self._write_in(environment_id, rotate)

    async def add_key(
        self, environment_id: EnvironmentId, key: str, scopes: Sequence[str], *, expires_at: datetime | None = None
    ) -> None:
        def add(connection: sqlite3.Connection, now: int) -> None:
            _insert_key(connection, environment_id, key, now, scopes=scopes, expires_at=maybe_ms(expires_at))

        await self._write_in(environment_id, add)

    async def _write_in(self, environment_id: EnvironmentId, act: Callable[[sqlite3.Connection, int], None]) -> None:
        def run(connection: sqlite3.Connection) -> None:
            if connection.execute(HAS_ENVIRONMENT, (bindable(environment_id),)).fetchone() is None:
                raise EnvironmentNotFoundError(environment_id)
            act(connection, self._db.now_ms())

        await self._db.write(run)

    def _cipher(self) -> Cipher:
        if self._db.cipher is None:
            raise IncompatibleStoreError(
                "Root keys are stored encrypted, and this database was opened without an encryption key"
            )
        return self._db.cipher

    def _seal(self, root_key: str) -> bytes:
        return self._cipher().encrypt(root_key.encode())


async def find_sealed_key(db: SqliteDatabase) -> bytes | None:
    """Return the newest root key as it is stored, encrypted, or None if there is none: what a cipher can be tried on."""
    row = await db.read(lambda c: c.execute(FIND_SEALED).fetchone())
    return None if row is None else row["sealed"]


def _insert_key(
    connection: sqlite3.Connection,
    environment_id: EnvironmentId,
    key: str,
    now: int,
    *,
    sealed: bytes | None = None,
    scopes: Sequence[str] | None = None,
    expires_at: int | None = None,
) -> None:
    values = {
        "hash": _hash(key),
        "environment": environment_id,
        "scopes": None if scopes is None else json_list(scopes),
        "sealed": sealed,
        "now": now,
        "expires_at": expires_at,
    }
    if not connection.execute(INSERT_KEY, values).rowcount:
        raise InvalidError("key", "exists already")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _environment_of(row: sqlite3.Row) -> Environment:
    return Environment(id=row["id"], organization_id=row["organization"], project_id=row["project"], type=row["type"])


def _grant_of(row: sqlite3.Row) -> KeyGrant:
    return KeyGrant(
        environment=_environment_of(row),
        scopes=None if row["scopes"] is None else tuple(json.loads(row["scopes"])),
        expires_at=maybe_moment(row["expires_at"]),
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
