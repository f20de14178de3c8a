"""Reading channels. Every call sees one moment, and nothing that was let go."""

from __future__ import annotations

import json
import sqlite3
from typing import Final

import attrs

from sessions_adapters.sqlite.heads import FIND_CHANNEL, FIND_LAST, address_of
from sessions_adapters.sqlite.readers import snapshot
from sessions_core.domain.channel import Batch, Channel, Headers, Record, Tail
from sessions_core.domain.guard import Guard
from sessions_core.ports.channel_log import READ_BYTES

READ: Final = """
    select seq, timestamp, body, headers from log where channel = ? and seq >= ? order by seq limit ?
"""
READ_BACK: Final = """
    select seq, timestamp, body, headers from log where channel = ? and seq >= ? and seq < ? order by seq desc limit ?
"""
_LARGEST: Final = 2**63 - 1


def storable(number: int) -> int:
    """Return the nearest whole number from 0 on that SQLite can store."""
    return max(0, min(number, _LARGEST))


def read_tail(connection: sqlite3.Connection, channel: Channel) -> Tail:
    """Return the end of *channel*."""
    with snapshot(connection):
        return _find_end(connection, channel).tail


def read(
    connection: sqlite3.Connection, channel: Channel, start: int, limit: int, max_bytes: int = READ_BYTES
) -> Batch:
    """Return at most *limit* kept records from *start* on; fewer, but at least one, once *max_bytes* are passed."""
    with snapshot(connection):
        end = _find_end(connection, channel)
        first = max(storable(start), end.tail.first_seq)
        records = _records(connection, READ, (end.id, first, storable(limit)), max_bytes)
        return Batch(tuple(records), end.tail.next_seq, end.tail.timestamp)


def read_back(connection: sqlite3.Connection, channel: Channel, before: int, limit: int) -> list[Record]:
    """Return at most *limit* kept records before *before*, newest first; fewer, but at least one, if they are large."""
    with snapshot(connection):
        end = _find_end(connection, channel)
        values = (end.id, end.tail.first_seq, storable(before), storable(limit))
        return _records(connection, READ_BACK, values, READ_BYTES)


def _records(connection: sqlite3.Connection, statement: str, values: tuple[int, ...], max_bytes: int) -> list[Record]:
    """Read until the bodies come to *max_bytes*; rows beyond that are not even loaded."""
    records: list[Record] = []
    for row in connection.execute(statement, values):
        records.append(_record(row))
        max_bytes -= len(row["body"])
        if max_bytes <= 0:
            break
    return records


@attrs.frozen
class _End:
    id: int
    tail: Tail


def _find_end(connection: sqlite3.Connection, channel: Channel) -> _End:
    row = connection.execute(FIND_CHANNEL, address_of(channel)).fetchone()
    if row is None:
        return _End(0, Tail())
    guard, first_seq = Guard.parse(row["guard"]), row["first_seq"]
    last = connection.execute(FIND_LAST, (row["id"],)).fetchone()
    if last is None:
        return _End(row["id"], Tail(next_seq=first_seq, first_seq=first_seq, guard=guard))
    tail = Tail(next_seq=last["seq"] + 1, first_seq=first_seq, timestamp=last["timestamp"], guard=guard)
    return _End(row["id"], tail)


def _record(row: sqlite3.Row) -> Record:
    seq, timestamp, body, headers = row
    return Record(seq, timestamp, body, _headers(headers))


def _headers(text: str | None) -> Headers:
    return () if text is None else tuple((name, value) for name, value in json.loads(text))
