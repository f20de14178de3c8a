"""All sessions of the table, with versions that compare with those of the change feed.

How this works
--------------
A change's version is where its commit ends in the server's log. Rows that are read get as their version a position P of that
log which was taken before. That is right if every transaction whose commit ends up to P is seen by the statement that reads:
then whatever the rows do not show has a version above P, and wins in the index whenever it comes.

A commit is in the log a moment before others see it, longer if it waits for a standby. So after taking P we wait for those
who are writing sessions at that time: a transaction holds its lock on the table from its first change until others see it.
Whoever takes the lock later commits after P. P is a position that has reached the disk: what lies beyond may be lost with a
crash, and the server would then use the same positions again for something else.
"""

from __future__ import annotations

from typing import Any, Final

import anyio
import asyncpg
import attrs

from sessions_adapters.postgres.connecting import Connection
from sessions_adapters.postgres.database import PostgresDatabase
from sessions_adapters.postgres.replication.config import ReplicationConfig
from sessions_adapters.postgres.replication.setup import prepare
from sessions_adapters.postgres.session_rows import SESSION_COLUMNS, session_of
from sessions_core.domain.ids import SessionId
from sessions_core.errors import IncompatibleStoreError, StoreUnavailableError
from sessions_core.ports.change_feed import ChangeKind, UnreadableChange
from sessions_core.ports.session_index import IndexRow
from sessions_core.ports.session_scan import BackfillProgress, ScanChunk, SessionScan

POSITION: Final = "select (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint"
WRITERS: Final = """
    select distinct virtualtransaction from pg_locks
    where locktype = 'relation' and granted and relation = 'session'::regclass
        and database = (select oid from pg_database where datname = current_database())
        and mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
"""
# Large values are counted only as far as the rows can be in the chunk; the first row is always in it.
READ: Final = f"""
    select {SESSION_COLUMNS} from (
        select *, sum(octet_length(trigger_config::text) + coalesce(octet_length(metadata::text), 0))
            over (order by id rows between unbounded preceding and 1 preceding) as bytes_before
        from (select * from session where $1::text is null or id > $1 order by id limit $2) as following
    ) as measured
    where bytes_before is null or bytes_before < $3 order by id
"""  # noqa: S608 - constants
ESTIMATE: Final = "select reltuples::bigint from pg_class where oid = 'session'::regclass"
COUNT: Final = "select count(*) from session"
FIND: Final = """
    select started_at, after_id, done, ended_at from backfill
    where slot = $1 and exists (select from pg_replication_slots where slot_name = $1)
"""
BEGIN: Final = """
    insert into backfill (slot, started_at, after_id, done, ended_at) values ($1, now_or(null), null, 0, null)
    on conflict (slot) do update set
        started_at = excluded.started_at, after_id = excluded.after_id, done = excluded.done, ended_at = excluded.ended_at
    returning started_at, after_id, done, ended_at
"""
SAVE: Final = "update backfill set after_id = $2, done = $3 where slot = $1 and ended_at is null"
END: Final = "update backfill set after_id = $2, done = $3, ended_at = now_or(null) where slot = $1 returning ended_at"
AGAIN: Final = "begin the backfill again"
CHUNK_BYTES: Final = 8_388_608
"""About how much of the rows' large columns one chunk has at most, unless a single row has more."""
FIRST_PAUSE: Final = 0.002
LONGEST_PAUSE: Final = 0.25


@attrs.define
class PostgresSessionScan(SessionScan):
    """Reads the table along its primary key.

    A chunk waits for the transactions that were writing sessions when it began, however long they take: they hold back the
    chunk, and nothing else.
    """

    _db: PostgresDatabase
    _options: ReplicationConfig = attrs.field(factory=ReplicationConfig)

    async def estimate(self) -> int:
        known = await self._value(ESTIMATE)
        return known if known >= 0 else await self._value(COUNT)

    async def read(self, after: SessionId | None, limit: int) -> ScanChunk:
        async with self._db.connection() as connection:
            version: int = await connection.fetchval(POSITION)
            await _await_writers(connection)
            rows = await connection.fetch(READ, after, limit, CHUNK_BYTES)
        return _chunk(rows, version)

    async def find_progress(self) -> BackfillProgress | None:
        row = await self._db.fetchrow(FIND, self._options.slot)
        return None if row is None else _progress(row)

    async def begin(self) -> BackfillProgress:
        await prepare(self._db.config, self._options)
        [row] = await self._db.change(BEGIN, self._options.slot)
        return _progress(row)

    async def save(self, progress: BackfillProgress) -> None:
        await self._db.execute(SAVE, self._options.slot, progress.after, progress.done)

    async def end(self, progress: BackfillProgress) -> BackfillProgress:
        rows = await self._db.change(END, self._options.slot, progress.after, progress.done)
        if not rows:
            raise IncompatibleStoreError(
                f"The replication slot {self._options.slot!r} was made anew meanwhile; {AGAIN}"
            )
        return attrs.evolve(progress, ended_at=rows[0]["ended_at"])

    async def _value(self, statement: str) -> int:
        row = await self._db.fetchrow(statement)
        assert row is not None
        return int(row[0])


async def _await_writers(connection: Connection) -> None:
    """Wait until those who write sessions now have ended. Those who begin meanwhile do not matter."""
    writers = await _writers(connection)
    pause = FIRST_PAUSE
    while writers:
        await anyio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
        writers &= await _writers(connection)


async def _writers(connection: Connection) -> set[str]:
    return {row["virtualtransaction"] for row in await connection.fetch(WRITERS)}


def _chunk(rows: list[asyncpg.Record], version: int) -> ScanChunk:
    found: list[IndexRow] = []
    unreadable: list[UnreadableChange] = []
    for row in rows:
        try:
            found.append(IndexRow(session_of(row), version))
        except StoreUnavailableError as error:
            unreadable.append(_unreadable(row, version, error))
    last = SessionId(rows[-1]["id"]) if rows else None
    return ScanChunk(rows=tuple(found), unreadable=tuple(unreadable), last=last)


def _unreadable(row: asyncpg.Record, version: int, error: StoreUnavailableError) -> UnreadableChange:
    return UnreadableChange(
        kind=ChangeKind.INSERT,
        session=row["id"],
        version=version,
        reason=f"{type(error.__cause__).__name__}: {error.__cause__}",
        columns={name: None if value is None else _text(value) for name, value in row.items()},
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _progress(row: asyncpg.Record) -> BackfillProgress:
    return BackfillProgress(
        started_at=row["started_at"],
        after=None if row["after_id"] is None else SessionId(row["after_id"]),
        done=row["done"],
        ended_at=row["ended_at"],
    )
