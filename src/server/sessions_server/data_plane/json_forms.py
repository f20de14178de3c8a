"""The JSON forms of S2's messages, without any input or output.

Names, values and bodies are texts there. The header ``s2-format`` says how they stand for bytes: ``raw`` as UTF-8, ``base64``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from sessions_core.domain.channel import Record
from sessions_server.data_plane.failures import BAD_HEADER, BAD_JSON, INVALID, S2Error
from sessions_server.data_plane.records import MAX_HEADERS, MAX_RECORDS, Ack, AppendInput, Position, make_record

_RAW: Final = ("raw", "json")
_BASE64: Final = ("base64", "json-binsafe")
_ENCODE: Final = msgspec.json.Encoder().encode


class _JsonRecord(msgspec.Struct, frozen=True):
    timestamp: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""


class _JsonInput(msgspec.Struct, frozen=True):
    records: tuple[_JsonRecord, ...]
    match_seq_num: int | None = None
    fencing_token: str | None = None


_DECODE: Final = msgspec.json.Decoder(_JsonInput).decode


def is_base64(header: str | None) -> bool:
    """Read ``s2-format``.

    Raises:
        S2Error: No such format.
    """
    name = "raw" if header is None else header.strip()
    if name not in _RAW + _BASE64:
        raise S2Error.of(BAD_HEADER, "s2-format is raw or base64")
    return name in _BASE64


def decode_append_input(data: bytes, *, as_base64: bool) -> AppendInput:
    """Read an append.

    Raises:
        S2Error: It is no such JSON, or breaks a rule.
    """
    try:
        given = _DECODE(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = str(error) if isinstance(error, msgspec.ValidationError) else "The body is not valid JSON"
        raise S2Error.of(BAD_JSON, message) from None
    if given.match_seq_num is not None and given.match_seq_num < 0:
        raise S2Error.of(BAD_JSON, "Expected `int` >= 0 - at `$.match_seq_num`")
    _check_counts(given)
    read = _from_base64 if as_base64 else str.encode
    try:
        records = tuple(
            make_record([(read(name), read(value)) for name, value in record.headers], read(record.body))
            for record in given.records
        )
    except (binascii.Error, ValueError):
        raise S2Error.of(INVALID, "A text does not stand for bytes in this s2-format") from None
    return AppendInput(records, given.match_seq_num, given.fencing_token)


def _check_counts(given: _JsonInput) -> None:
    """Refuse what would take long to look at, before it is looked at."""
    if len(given.records) > MAX_RECORDS:
        raise S2Error.of(INVALID, f"A batch has 1 to {MAX_RECORDS} records")
    if sum(len(record.headers) for record in given.records) > MAX_HEADERS:
        raise S2Error.of(INVALID, f"A batch has at most {MAX_HEADERS} headers")


def encode_append_ack(ack: Ack) -> bytes:
    """Write the answer to an append."""
    return _ENCODE({"start": _position(ack.start), "end": _position(ack.end), "tail": _position(ack.tail)})


def encode_tail(tail: Position) -> bytes:
    """Write the answer to a question for the tail."""
    return _ENCODE({"tail": _position(tail)})


def encode_read_batch(records: Iterable[Record], tail: Position | None, *, as_base64: bool) -> bytes:
    """Write what was read; empty headers and bodies are left out."""
    batch: dict[str, Any] = {"records": [_record(record, as_base64=as_base64) for record in records]}
    if tail is not None:
        batch["tail"] = _position(tail)
    return _ENCODE(batch)


def encode_ping(tail: Position, now_ms: int) -> bytes:
    """Write what a silent stream of events is told."""
    return _ENCODE({"timestamp": now_ms, "tail": _position(tail)})


def _record(record: Record, *, as_base64: bool) -> dict[str, Any]:
    write = _to_base64 if as_base64 else _to_text
    found: dict[str, Any] = {"seq_num": record.seq, "timestamp": record.timestamp}
    if record.headers:
        found["headers"] = [[write(_bytes(name)), write(_bytes(value))] for name, value in record.headers]
    if record.body:
        found["body"] = write(record.body)
    return found


def _position(position: Position) -> dict[str, int]:
    return {"seq_num": position.seq, "timestamp": position.timestamp}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _to_text(data: bytes) -> str:
    return data.decode(errors="replace")
