"""Writes down messages of ``pgoutput`` as a server would: the opposite of the decoder, for its tests."""

from __future__ import annotations

import struct
from datetime import datetime, timedelta
from typing import Final

from sessions_adapters.postgres.replication.messages import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Insert,
    Message,
    OldRow,
    Origin,
    Relation,
    RowValues,
    Truncate,
    Type,
    Update,
)
from sessions_adapters.postgres.replication.reader import EPOCH

MICROSECOND: Final = timedelta(microseconds=1)


def encode(message: Message) -> bytes:
    match message:
        case Begin(position, at, transaction):
            return b"B" + struct.pack("!QqI", position, _moment(at), transaction)
        case Commit(position, end, at):
            return b"C\x00" + struct.pack("!QQq", position, end, _moment(at))
        case Origin(position, name):
            return b"O" + struct.pack("!Q", position) + _text(name)
        case Type(number, schema, name):
            return b"Y" + struct.pack("!I", number) + _schema(schema) + _text(name)
        case Truncate(relations, options):
            return b"T" + struct.pack(f"!IB{len(relations)}I", len(relations), options, *relations)
        case Relation():
            return _relation(message)
        case Insert(relation, new):
            return b"I" + struct.pack("!I", relation) + b"N" + _values(new)
        case Update(relation, old, new):
            before = b"" if old is None else _old(old)
            return b"U" + struct.pack("!I", relation) + before + b"N" + _values(new)
        case Delete(relation, old):
            return b"D" + struct.pack("!I", relation) + _old(old)


def encode_data(message: Message, *, end: int = 0) -> bytes:
    """Return the frame that carries *message*."""
    return b"w" + struct.pack("!QQq", end, end, 0) + encode(message)


def encode_keepalive(end: int, *, wants_reply: bool = False) -> bytes:
    return b"k" + struct.pack("!QqB", end, 0, wants_reply)


def _moment(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


def _text(text: str) -> bytes:
    return text.encode() + b"\x00"


def _schema(name: str) -> bytes:
    return b"\x00" if name == "pg_catalog" else _text(name)


def _relation(relation: Relation) -> bytes:
    head = struct.pack("!I", relation.id) + _schema(relation.schema) + _text(relation.name)
    columns = (
        struct.pack("!B", column.is_key) + _text(column.name) + struct.pack("!Ii", column.type, column.modifier)
        for column in relation.columns
    )
    count = struct.pack("!H", len(relation.columns))
    return b"R" + head + relation.identity.value.encode() + count + b"".join(columns)


def _old(row: OldRow) -> bytes:
    return (b"O" if row.is_whole else b"K") + _values(row.values)


def _values(values: RowValues) -> bytes:
    return struct.pack("!H", len(values)) + b"".join(map(_value, values))


def _value(value: object) -> bytes:
    if value is None:
        return b"n"
    if value is UNCHANGED:
        return b"u"
    assert isinstance(value, bytes)
    return b"t" + struct.pack("!I", len(value)) + value
