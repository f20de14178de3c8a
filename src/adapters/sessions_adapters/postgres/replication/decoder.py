"""From the bytes of ``pgoutput`` version 1 to messages: no I/O, no state, no guessing.

The first byte says what a message is. Whatever is not exactly as the protocol describes it raises
:class:`MalformedMessageError`; values stay the bytes they are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from sessions_adapters.postgres.replication.messages import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    Message,
    OldRow,
    Origin,
    Relation,
    ReplicaIdentity,
    RowValues,
    Truncate,
    TruncateOption,
    Type,
    Update,
    Value,
)
from sessions_adapters.postgres.replication.reader import MalformedMessageError, Reader

CATALOGUE: Final = "pg_catalog"
BEGIN: Final = b"B"
COMMIT: Final = b"C"
_NEW: Final = ord("N")
_KEY: Final = ord("K")
_OLD: Final = ord("O")
_NULL: Final = ord("n")
_UNCHANGED: Final = ord("u")
_TEXT: Final = ord("t")
_LENGTH: Final = struct.Struct("!I")
_ALL_OPTIONS: Final = TruncateOption.CASCADE | TruncateOption.RESTART_IDENTITY


def decode(message: bytes) -> Message:
    """Return what *message* says.

    Raises:
        MalformedMessageError: It is not a whole message of ``pgoutput`` version 1, and nothing but that.
    """
    reader = Reader(message)
    kind = reader.byte()
    read = _READ.get(kind)
    if read is None:
        raise MalformedMessageError(f"unknown message {bytes((kind,))!r}")
    decoded = read(reader)
    reader.finish()
    return decoded


def _begin(reader: Reader) -> Begin:
    return Begin(reader.position(), reader.moment(), reader.identifier())


def _commit(reader: Reader) -> Commit:
    if flags := reader.byte():
        raise MalformedMessageError(f"a commit has flags {flags}")
    return Commit(reader.position(), reader.position(), reader.moment())


def _origin(reader: Reader) -> Origin:
    return Origin(reader.position(), reader.text())


def _relation(reader: Reader) -> Relation:
    number, schema, name = reader.identifier(), reader.text() or CATALOGUE, reader.text()
    identity = _identity(reader.byte())
    return Relation(number, schema, name, identity, tuple(_column(reader) for _ in range(reader.count())))


def _identity(mark: int) -> ReplicaIdentity:
    try:
        return ReplicaIdentity(chr(mark))
    except ValueError as exc:
        raise MalformedMessageError(f"unknown replica identity {mark}") from exc


def _column(reader: Reader) -> Column:
    is_key = reader.flag()
    return Column(reader.text(), reader.identifier(), reader.int32(), is_key)


def _type(reader: Reader) -> Type:
    return Type(reader.identifier(), reader.text() or CATALOGUE, reader.text())


def _insert(reader: Reader) -> Insert:
    relation = reader.identifier()
    _expect_new(reader.byte())
    return Insert(relation, _values(reader))


def _update(reader: Reader) -> Update:
    relation, mark, old = reader.identifier(), reader.byte(), None
    if mark != _NEW:
        old = _old(reader, mark)
        mark = reader.byte()
    _expect_new(mark)
    return Update(relation, old, _values(reader))


def _delete(reader: Reader) -> Delete:
    return Delete(reader.identifier(), _old(reader, reader.byte()))


def _truncate(reader: Reader) -> Truncate:
    count, options = reader.long_count(), reader.byte()
    if options > _ALL_OPTIONS:
        raise MalformedMessageError(f"unknown options of a truncate: {options}")
    return Truncate(tuple(reader.identifier() for _ in range(count)), TruncateOption(options))


def _expect_new(mark: int) -> None:
    if mark != _NEW:
        raise MalformedMessageError(f"a new row is marked {mark}")


def _old(reader: Reader, mark: int) -> OldRow:
    if mark not in (_KEY, _OLD):
        raise MalformedMessageError(f"an old row is marked {mark}")
    return OldRow(_values(reader), is_whole=mark == _OLD)


def _values(reader: Reader) -> RowValues:
    """Read a row. The innermost loop of replication: it does by itself, and twice as fast, what a reader's methods do."""
    values: list[Value] = []
    count, data, place = reader.count(), reader.data, reader.place
    try:
        for _ in range(count):
            mark, place = data[place], place + 1
            if mark == _TEXT:
                start = place + _LENGTH.size
                place = start + _LENGTH.unpack_from(data, place)[0]
                values.append(data[start:place])
            elif mark == _NULL:
                values.append(None)
            elif mark == _UNCHANGED:
                values.append(UNCHANGED)
            else:
                raise MalformedMessageError(f"a value is marked {mark}")
    except (IndexError, struct.error) as exc:
        raise MalformedMessageError("a row ends too early") from exc
    if place > len(data):
        raise MalformedMessageError("a value is cut off")
    reader.place = place
    return tuple(values)


_READ: Final[dict[int, Callable[[Reader], Message]]] = {
    ord(BEGIN): _begin,
    ord(COMMIT): _commit,
    ord("O"): _origin,
    ord("R"): _relation,
    ord("Y"): _type,
    ord("I"): _insert,
    ord("U"): _update,
    ord("D"): _delete,
    ord("T"): _truncate,
}
