"""Reading channels. Every call is one statement, so it sees one moment, and nothing that was let go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import asyncpg

from sessions_adapters.postgres.values import LARGEST, storable_number
from sessions_core.domain.channel import Batch, Headers, Record, Tail
from sessions_core.domain.guard import Guard

READ_TAIL: Final = "select guard, next_seq, first_seq, last_timestamp from channel where id = $1"
# Bodies are added up on the way, so that no more of them are loaded than an answer may hold: a record is taken while
# those before it come to less than that.
READ: Final = """
    select c.next_seq, c.last_timestamp, r.seq, r.timestamp, r.body, r.headers
    from channel c left join lateral (
        select * from (
            select l.*, sum(octet_length(l.body)) over (order by l.seq rows between unbounded preceding and 1 preceding)
                as before
            from (
                select * from record where channel = $1 and seq >= greatest($2::bigint, c.first_seq)
                order by seq limit $3
            ) l
        ) w where coalesce(before, 0) < $4
    ) r on true
    where c.id = $1
    order by r.seq
"""
READ_BACK: Final = """
    select r.seq, r.timestamp, r.body, r.headers
    from channel c cross join lateral (
        select * from (
            select l.*,
                sum(octet_length(l.body)) over (order by l.seq desc rows between unbounded preceding and 1 preceding)
                    as before
            from (
                select * from record where channel = $1 and seq >= c.first_seq and seq < $2
                order by seq desc limit $3
            ) l
        ) w where coalesce(before, 0) < $4
    ) r
    where c.id = $1
    order by r.seq desc
"""


def tail_of(row: asyncpg.Record | None) -> Tail:
    """Return the end of a channel from :data:`READ_TAIL`."""
    if row is None:
        return Tail()
    guard, next_seq, first_seq, timestamp = row
    return Tail(next_seq=next_seq, first_seq=first_seq, timestamp=timestamp, guard=Guard.parse(guard))


def read_values(channel: bytes, position: int, limit: int, max_bytes: int) -> tuple[bytes, int, int, int]:
    """Return the values for :data:`READ` and :data:`READ_BACK`."""
    return (channel, storable_number(position), storable_number(limit), min(max_bytes, LARGEST))


def batch_of(rows: Sequence[asyncpg.Record]) -> Batch:
    """Return what :data:`READ` has found."""
    if not rows:
        return Batch((), 0, 0)
    records = tuple(record_of(row) for row in rows if row["seq"] is not None)
    return Batch(records, rows[0]["next_seq"], rows[0]["last_timestamp"])


def record_of(row: asyncpg.Record) -> Record:
    """Return the record in *row*."""
    return Record(row["seq"], row["timestamp"], row["body"], _headers(row["headers"]))


def _headers(text: str | None) -> Headers:
    return () if text is None else tuple((name, value) for name, value in json.loads(text))
