"""Waitpoints in SQLite."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final

import attrs

from sessions_adapters.shared.unreadable import stored
from sessions_adapters.sqlite.database import SqliteDatabase, for_owner
from sessions_adapters.sqlite.values import (
    bindable,
    from_ms,
    json_list,
    maybe_moment,
    maybe_ms,
    maybe_value,
    to_ms,
)
from sessions_core.domain.channel import Channel, Io, encode_json
from sessions_core.domain.ids import EnvironmentId, WaitpointId
from sessions_core.domain.waitpoint import Completion, Waitpoint
from sessions_core.errors import StoreUnavailableError, WaitpointNotFoundError
from sessions_core.ports.waitpoint_store import WaitpointCreation, WaitpointStore

FIND: Final = "select * from waitpoint where id = ? and environment = ?"
FIND_BY_KEY: Final = """
    select * from waitpoint where environment = ? and idempotency_key = ?
        and (idempotency_expires_at is null or idempotency_expires_at > ?)
    limit 1
"""
INSERT: Final = """
    insert into waitpoint (
        id, environment, key, io, name, run_id, after_seq, created_at, expires_at, idempotency_key,
        idempotency_expires_at, tags, status, output, seq, completed_at
    ) values (
        :id, :environment, :key, :io, :name, :run_id, :after_seq, :created_at, :expires_at, :idempotency_key,
        :idempotency_expires_at, :tags, :status, :output, :seq, :completed_at
    )
"""
COMPLETE: Final = """
    update waitpoint set status = :status, output = :output, seq = :seq, completed_at = :now
    where id = :id and status = 'WAITING'
"""
LIST_WAITING: Final = "select * from waitpoint where status = 'WAITING' and id > ? order by id"
LIST_WAITING_ON: Final = """
    select * from waitpoint where status = 'WAITING' and environment = ? and key = ? and io = ? and name is ?
    order by id
"""
LIST_DUE: Final = """
    select * from waitpoint where status = 'WAITING' and expires_at <= ? order by expires_at, id
"""


@attrs.define
class SqliteWaitpointStore(WaitpointStore):
    """Keeps waitpoints in a table. Whoever waits is woken by the commit: all completions come from this process."""

    _db: SqliteDatabase = attrs.field(validator=for_owner)

    async def create(self, waitpoint: Waitpoint) -> WaitpointCreation:
        return await self._db.write(lambda c: _create(c, waitpoint, self._db.now_ms()))

    async def find(self, environment_id: EnvironmentId, waitpoint_id: WaitpointId) -> Waitpoint | None:
        def find(connection: sqlite3.Connection) -> Waitpoint | None:
            row = connection.execute(FIND, (bindable(waitpoint_id), bindable(environment_id))).fetchone()
            return None if row is None else _waitpoint_of(row)

        return await self._db.read(find)

    async def complete(self, waitpoint_id: WaitpointId, completion: Completion) -> bool:
        values = {
            "id": waitpoint_id,
            "status": completion.status.value,
            "output": encode_json(completion.output),
            "seq": completion.seq,
        }
        return await self._db.write(
            lambda c: c.execute(COMPLETE, values | {"now": self._db.now_ms()}).rowcount > 0,
            after=lambda _: self._db.waiters.wake(waitpoint_id),
        )

    async def wait(self, environment_id: EnvironmentId, waitpoint_id: WaitpointId) -> Waitpoint:
        with self._db.waiters.expect(waitpoint_id) as news:  # before looking, so that no wake-up is lost
            waitpoint = await self._get(environment_id, waitpoint_id)
            if not waitpoint.is_waiting:
                return waitpoint
            if not await news:
                raise StoreUnavailableError
        return await self._get(environment_id, waitpoint_id)

    async def list_waiting(self, after: WaitpointId | None, limit: int) -> list[Waitpoint]:
        return await self._list(LIST_WAITING, ("" if after is None else after,), limit)

    async def list_waiting_on(self, channel: Channel, limit: int) -> list[Waitpoint]:
        address = (bindable(channel.environment_id), bindable(channel.key), channel.io.value, channel.name)
        return await self._list(LIST_WAITING_ON, address, limit)

    async def list_due(self, limit: int) -> list[Waitpoint]:
        return await self._list(LIST_DUE, (self._db.now_ms(),), limit)

    async def _get(self, environment_id: EnvironmentId, waitpoint_id: WaitpointId) -> Waitpoint:
        waitpoint = await self.find(environment_id, waitpoint_id)
        if waitpoint is None:
            raise WaitpointNotFoundError(waitpoint_id)
        return waitpoint

    async def _list(self, statement: str, values: tuple[Any, ...], limit: int) -> list[Waitpoint]:
        return await self._db.read(lambda c: self._db.results.read(c.execute(statement, values), _waitpoint_of, limit))


def _create(connection: sqlite3.Connection, waitpoint: Waitpoint, now: int) -> WaitpointCreation:
    if waitpoint.idempotency_key is not None:
        values = (waitpoint.channel.environment_id, waitpoint.idempotency_key, now)
        row = connection.execute(FIND_BY_KEY, values).fetchone()
        if row is not None:
            return WaitpointCreation(_waitpoint_of(row), is_cached=True)
    connection.execute(INSERT, _values(waitpoint))
    return WaitpointCreation(waitpoint, is_cached=False)


def _values(waitpoint: Waitpoint) -> dict[str, Any]:
    return {
        "id": waitpoint.id,
        "environment": waitpoint.channel.environment_id,
        "key": waitpoint.channel.key,
        "io": waitpoint.channel.io.value,
        "name": waitpoint.channel.name,
        "run_id": waitpoint.run_id,
        "after_seq": waitpoint.after_seq,
        "created_at": to_ms(waitpoint.created_at),
        "expires_at": maybe_ms(waitpoint.expires_at),
        "idempotency_key": waitpoint.idempotency_key,
        "idempotency_expires_at": maybe_ms(waitpoint.idempotency_expires_at),
        "tags": json_list(waitpoint.tags),
        "status": waitpoint.status.value,
        "output": None if waitpoint.is_waiting else encode_json(waitpoint.output),
        "seq": waitpoint.seq,
        "completed_at": maybe_ms(waitpoint.completed_at),
    }


@stored
def _waitpoint_of(row: sqlite3.Row) -> Waitpoint:
    return Waitpoint(
        id=row["id"],
        run_id=row["run_id"],
        channel=Channel(row["environment"], row["key"], Io(row["io"]), row["name"]),
        created_at=from_ms(row["created_at"]),
        after_seq=row["after_seq"],
        expires_at=maybe_moment(row["expires_at"]),
        idempotency_key=row["idempotency_key"],
        idempotency_expires_at=maybe_moment(row["idempotency_expires_at"]),
        tags=tuple(json.loads(row["tags"])),
        status=row["status"],
        output=maybe_value(row["output"]),
        seq=row["seq"],
        completed_at=maybe_moment(row["completed_at"]),
    )
