"""The protobuf messages of S2 (``s2/v1/s2.proto``), without any input or output.

There are five small messages whose fields are numbers, byte strings and each other, so they are written out by hand; why, is in
docs/explanation/decisions.md. Unknown fields are skipped, as protobuf wants it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from sessions_core.domain.channel import NewRecord, Record
from sessions_server.data_plane.failures import BAD_PROTO, INVALID, S2Error
from sessions_server.data_plane.records import MAX_HEADERS, MAX_RECORDS, Ack, AppendInput, Position, make_record

_MAX_FIELDS: Final = 4 * MAX_RECORDS + 3 * MAX_HEADERS
"""Of a batch with all that is in it: a record takes up to four, a header three."""
_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_WIDTHS: Final = {_FIXED64: 8, _FIXED32: 4}
_MAX_UINT64: Final = 2**64 - 1
_LONGEST_VARINT: Final = 10
_BODY_TAG: Final = 3 << 3 | _BYTES
_Pairs = list[tuple[bytes, bytes]]
_Budget = Iterator[int]
"""Gives one number for each field that may still come: what a message costs is the number of its fields more than its bytes."""


def decode_append_input(data: bytes) -> AppendInput:
    """Read an ``AppendInput``.

    Raises:
        S2Error: It is no such message, or breaks a rule.
    """
    records: list[NewRecord] = []
    match_seq_num: int | None = None
    token: str | None = None
    budget = iter(range(_MAX_FIELDS))
    for number, value in _fields(data, budget):
        match number, value:
            case 1, bytes():
                records.append(_record(value, budget))
            case 2, int():
                match_seq_num = value
            case 3, bytes():
                token = _text(value)
            case 1 | 2 | 3, _:
                raise _broken()
            case _:
                pass
    return AppendInput(tuple(records), match_seq_num, token, len(data))


def encode_append_ack(ack: Ack) -> bytes:
    """Write an ``AppendAck``; all three positions are there, whatever their numbers."""
    return b"".join(_field(number, _position(place)) for number, place in ((1, ack.start), (2, ack.end), (3, ack.tail)))


def encode_read_batch(records: Iterable[Record], tail: Position | None) -> bytes:
    """Write a ``ReadBatch``."""
    parts = [_field(1, _sequenced(record)) for record in records]
    if tail is not None:
        parts.append(_field(2, _position(tail)))
    return b"".join(parts)


def _record(data: bytes, budget: _Budget) -> NewRecord:
    """Read an ``AppendRecord``; usually it is nothing but a body. Its timestamp does not count: records have that of their arrival."""
    if data[:1] == _BODY_START:
        length, start = _varint(data, 1)
        if start + length == len(data):
            return make_record((), data[start:])
    headers: _Pairs = []
    body = b""
    for number, value in _fields(data, budget):
        match number, value:
            case 1, int():
                pass
            case 2, bytes():
                headers.append(_header(value, budget))
            case 3, bytes():
                body = value
            case 1 | 2 | 3, _:
                raise _broken()
            case _:
                pass
    return make_record(headers, body)


_BODY_START: Final = bytes((_BODY_TAG,))


def _header(data: bytes, budget: _Budget) -> tuple[bytes, bytes]:
    name = content = b""
    for number, value in _fields(data, budget):
        match number, value:
            case 1, bytes():
                name = value
            case 2, bytes():
                content = value
            case 1 | 2, _:
                raise _broken()
            case _:
                pass
    return name, content


def _fields(data: bytes, budget: _Budget) -> Iterator[tuple[int, int | bytes | None]]:
    """Yield the number and value of each field; None for a kind of value that no field of ours has."""
    at, end = 0, len(data)
    while at < end:
        if next(budget, None) is None:
            raise S2Error.of(INVALID, f"A batch has at most {MAX_RECORDS} records and {MAX_HEADERS} headers")
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise _broken()
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif kind == _BYTES:
            length, at = _varint(data, at)
            at += length
            if at > end:
                raise _broken()
            yield number, data[at - length : at]
        elif kind in _WIDTHS:
            at += _WIDTHS[kind]
            if at > end:
                raise _broken()
            yield number, None
        else:
            raise _broken()


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at *at* and where it ends."""
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    value = 0
    for index, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if value > _MAX_UINT64:
                raise _broken()
            return value, at + index + 1
    raise _broken()


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _broken() from None


def _sequenced(record: Record) -> bytes:
    parts = [_number(1, record.seq), _number(2, record.timestamp)]
    parts += [_field(3, _pair(name, value)) for name, value in record.headers]
    if record.body:
        parts.append(_field(4, record.body))
    return b"".join(parts)


def _pair(name: str, value: str) -> bytes:
    texts = (name.encode("utf-8", "surrogatepass"), value.encode("utf-8", "surrogatepass"))
    return b"".join(_field(number, text) for number, text in enumerate(texts, 1) if text)


def _position(position: Position) -> bytes:
    return _number(1, position.seq) + _number(2, position.timestamp)


def _number(field: int, value: int) -> bytes:
    """Write a number; protobuf leaves out a zero."""
    return _encode_varint(field << 3 | _VARINT) + _encode_varint(value) if value else b""


def _field(field: int, value: bytes) -> bytes:
    return b"%b%b%b" % (_encode_varint(field << 3 | _BYTES), _encode_varint(len(value)), value)


def _encode_varint(value: int) -> bytes:
    if value < 0x80:
        return _SMALL[value]
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SMALL: Final = tuple(bytes((value,)) for value in range(0x80))


def _broken() -> S2Error:
    return S2Error.of(BAD_PROTO, "The message is not the protobuf that is expected here")
