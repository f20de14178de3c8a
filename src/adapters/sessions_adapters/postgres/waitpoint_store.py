"""Waitpoints in Postgres."""

from __future__ import annotations

from typing import Any, Final

import asyncpg
import attrs

from sessions_adapters.postgres.database import PostgresDatabase
from sessions_adapters.postgres.values import (
    bindable,
    channel_key,
    hash_of,
    maybe_moment,
    maybe_value,
    name_column,
    name_of,
    restored,
    storable,
)
from sessions_adapters.postgres.waiters import waitpoint_key
from sessions_adapters.shared.unreadable import stored
from sessions_core.domain.channel import Channel, Io, encode_json
from sessions_core.domain.ids import AddressingKey, EnvironmentId, WaitpointId
from sessions_core.domain.waitpoint import Completion, Waitpoint
from sessions_core.errors import StoreUnavailableError, WaitpointNotFoundError
from sessions_core.ports.waitpoint_store import WaitpointCreation, WaitpointStore

FIND: Final = "select * from waitpoint where id = $1 and environment_id = $2"
_COLUMNS: Final = (
    "id, channel, environment_id, key, io, name, run_id, after_seq, created_at, expires_at, idempotency_key, "
    "idempotency_expires_at, tags, status, output, seq, completed_at"
)
_VALUES: Final = (
    "$1::text, $2::bytea, $3::text, $4::text, $5::text, $6::text, $7::text, $8::bigint, $9::timestamptz, "
    "$10::timestamptz, $11::text, $12::timestamptz, $13::text[], $14::text, $15::text::json, $16::bigint, "
    "$17::timestamptz"
)
INSERT: Final = f"insert into waitpoint ({_COLUMNS}) values ({_VALUES})"  # noqa: S608 - a constant
# Of several callers with one key, the second waits for the first one's commit, and then finds the key taken.
INSERT_KEYED: Final = f"""
    with mine as (
        insert into waitpoint_key (environment_id, hash, waitpoint_id, expires_at) values ($3, $18, $1, $12)
        on conflict (environment_id, hash) do update
            set waitpoint_id = excluded.waitpoint_id, expires_at = excluded.expires_at
            where waitpoint_key.expires_at <= now_or($19)
        returning 1
    )
    insert into waitpoint ({_COLUMNS}) select {_VALUES} from mine
"""  # noqa: S608 - a constant
FIND_BY_KEY: Final = """
    select waitpoint.* from waitpoint_key join waitpoint on waitpoint.id = waitpoint_key.waitpoint_id
    where waitpoint_key.environment_id = $1 and waitpoint_key.hash = $2
"""
COMPLETE: Final = """
    update waitpoint set status = $2, output = $3::text::json, seq = $4, completed_at = now_or($5)
    where id = $1 and status = 'WAITING'
"""
LIST_WAITING: Final = "select * from waitpoint where status = 'WAITING' and id > $2 order by id limit $1"
LIST_WAITING_ON: Final = "select * from waitpoint where status = 'WAITING' and channel = $2 order by id limit $1"
LIST_DUE: Final = """
    select * from waitpoint where status = 'WAITING' and expires_at <= now_or($2) order by expires_at, id limit $1
"""


@attrs.define
class PostgresWaitpointStore(WaitpointStore):
    """Keeps waitpoints in a table. Whoever waits is woken by a notification, within ``poll_interval`` if that is lost."""

    _db: PostgresDatabase

    async def create(self, waitpoint: Waitpoint) -> WaitpointCreation:
        if waitpoint.idempotency_key is None:
            await self._db.execute(INSERT, *_values(waitpoint))
            return WaitpointCreation(waitpoint, is_cached=False)
        key = hash_of(waitpoint.idempotency_key)
        while not await self._db.execute(INSERT_KEYED, *_values(waitpoint), key, self._db.at()):
            row = await self._db.fetchrow(FIND_BY_KEY, waitpoint.channel.environment_id, key)
            if row is not None:
                return WaitpointCreation(_waitpoint_of(row), is_cached=True)
        return WaitpointCreation(waitpoint, is_cached=False)

    async def find(self, environment_id: EnvironmentId, waitpoint_id: WaitpointId) -> Waitpoint | None:
        row = await self._db.fetchrow(FIND, bindable(waitpoint_id), bindable(environment_id))
        return None if row is None else _waitpoint_of(row)

    async def complete(self, waitpoint_id: WaitpointId, completion: Completion) -> bool:
        output = encode_json(completion.output)
        values = (bindable(waitpoint_id), completion.status.value, output, completion.seq, self._db.at())
        done = await self._db.execute(COMPLETE, *values) > 0
        if done:
            self._db.waiters.wake(waitpoint_id)
            self._db.announcer.announce(waitpoint_key(waitpoint_id), 1)
        return done

    async def wait(self, environment_id: EnvironmentId, waitpoint_id: WaitpointId) -> Waitpoint:
        with self._db.waiters.expect(waitpoint_id) as news:  # before looking, so that no wake-up is lost
            waitpoint = await self._get(environment_id, waitpoint_id)
            if not waitpoint.is_waiting:
                return waitpoint
            if not await news:
                raise StoreUnavailableError
        return await self._get(environment_id, waitpoint_id)

    async def list_waiting(self, after: WaitpointId | None, limit: int) -> list[Waitpoint]:
        return await self._list(limit, LIST_WAITING, "" if after is None else after)

    async def list_waiting_on(self, channel: Channel, limit: int) -> list[Waitpoint]:
        return await self._list(limit, LIST_WAITING_ON, channel_key(channel))

    async def list_due(self, limit: int) -> list[Waitpoint]:
        return await self._list(limit, LIST_DUE, self._db.at())

    async def _get(self, environment_id: EnvironmentId, waitpoint_id: WaitpointId) -> Waitpoint:
        waitpoint = await self.find(environment_id, waitpoint_id)
        if waitpoint is None:
            raise WaitpointNotFoundError(waitpoint_id)
        return waitpoint

    async def _list(self, limit: int, statement: str, value: Any) -> list[Waitpoint]:
        return await self._db.pages.first(limit, lambda asked: self._db.fetch(statement, asked, value), _waitpoint_of)


def _values(waitpoint: Waitpoint) -> tuple[Any, ...]:
    channel, key = waitpoint.channel, waitpoint.idempotency_key
    return (
        waitpoint.id,
        channel_key(channel),
        channel.environment_id,
        storable(channel.key),
        channel.io.value,
        name_column(channel.name),
        waitpoint.run_id,
        waitpoint.after_seq,
        maybe_moment(waitpoint.created_at),
        maybe_moment(waitpoint.expires_at),
        None if key is None else storable(key),
        maybe_moment(waitpoint.idempotency_expires_at),
        waitpoint.tags,
        waitpoint.status.value,
        None if waitpoint.is_waiting else encode_json(waitpoint.output),
        waitpoint.seq,
        maybe_moment(waitpoint.completed_at),
    )


@stored
def _waitpoint_of(row: asyncpg.Record) -> Waitpoint:
    key = row["idempotency_key"]
    address = Channel(row["environment_id"], AddressingKey(restored(row["key"])), Io(row["io"]), name_of(row["name"]))
    return Waitpoint(
        id=row["id"],
        run_id=row["run_id"],
        channel=address,
        created_at=row["created_at"],
        after_seq=row["after_seq"],
        expires_at=row["expires_at"],
        idempotency_key=None if key is None else restored(key),
        idempotency_expires_at=row["idempotency_expires_at"],
        tags=tuple(row["tags"]),
        status=row["status"],
        output=maybe_value(row["output"]),
        seq=row["seq"],
        completed_at=row["completed_at"],
    )
