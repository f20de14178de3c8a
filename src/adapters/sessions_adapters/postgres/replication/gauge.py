"""What the server says about the replication slot."""

from __future__ import annotations

from typing import Final

import attrs

from sessions_adapters.postgres.database import PostgresDatabase
from sessions_adapters.postgres.replication.config import ReplicationConfig
from sessions_adapters.postgres.replication.setup import find_problem
from sessions_core.ports.feed_gauge import FeedGauge, FeedMeasure

# A slot that has lost its place has no positions any more.
MEASURE: Final = """
    select (pg_current_wal_flush_lsn() - coalesce(confirmed_flush_lsn, pg_current_wal_flush_lsn()))::bigint as lag,
        (pg_current_wal_flush_lsn() - coalesce(restart_lsn, pg_current_wal_flush_lsn()))::bigint as retained
    from pg_replication_slots where slot_name = $1
"""


@attrs.define
class PostgresFeedGauge(FeedGauge):
    """Asks for the slot's positions in the write-ahead log, and whether all that is streamed is still set up as it was.

    Nobody who streams would notice: a publication that lacks the table is as quiet as a table that nobody writes.
    """

    _db: PostgresDatabase
    _options: ReplicationConfig = attrs.field(factory=ReplicationConfig)

    async def measure(self) -> FeedMeasure | None:
        row = await self._db.fetchrow(MEASURE, self._options.slot)
        if row is None:
            return None
        async with self._db.connection() as connection:
            problem = await find_problem(connection, self._db.config.schema, self._options)
        return FeedMeasure(lag_bytes=max(row["lag"], 0), retained_bytes=max(row["retained"], 0), problem=problem)
