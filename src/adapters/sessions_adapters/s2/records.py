"""Records as they lie in a stream, and back.

How this works
--------------
Every record that we write can be told from every other, so that after a lost answer it can be found again: a data record
by the id in its envelope, any other by a header of ours, its last, which holds its part id or else a random mark. Nobody asks
for a mark again, so it begins with a byte that no text has, and is not remembered. Readers of the log never see that header. Commands can have no second header; writing one twice does what writing it once does.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

import attrs
from s2_sdk import CommandRecord, SequencedRecord, metered_bytes
from s2_sdk import Record as StoredRecord

from sessions_core.domain.channel import (
    MAX_RECORD_BYTES,
    NewRecord,
    Record,
    RecordKind,
    encode_json,
    envelope_id,
    kind_of,
)
from sessions_core.errors import InvalidError, RecordTooLargeError

PART_HEADER: Final = b"sessions-part"
LARGEST_SEQ: Final = 2**63 - 1
NO_TEXT: Final = b"\xff"
"""What marks begin with; part ids are UTF-8."""
MAX_BATCH_RECORDS: Final = 1000
MAX_BATCH_BYTES: Final = 1_048_576
_ENVELOPE_ID: Final = b',"id":'


@attrs.frozen
class Entry:
    """A record on its way into a stream.

    Attributes:
        part: What it is the same record by; None if it is like no other.
        first_kept: What a trim asks for.
    """

    stored: StoredRecord
    part: bytes | None
    size: int
    first_kept: int | None = None

    def at(self, seq: int) -> StoredRecord:
        """Return the record as it is stored at *seq*: a trim does not drop itself, which S2 would let it do."""
        if self.first_kept is None or self.first_kept <= seq:
            return self.stored
        return StoredRecord(seq.to_bytes(8, "big"), self.stored.headers, self.stored.timestamp)


def entry_of(record: NewRecord) -> Entry:
    """Prepare a data or control record.

    Raises:
        InvalidError: A command; those are written by guards and trims alone.
        RecordTooLargeError: S2 would not take it.
    """
    if kind_of(record.headers) is RecordKind.COMMAND or any(not name for name, _ in record.headers):
        raise InvalidError("headers", "must have names")
    part = None if record.part_id is None else _encode(record.part_id)
    stored = StoredRecord(record.body, [(_encode(name), _encode(value)) for name, value in record.headers])
    mark = _mark(record, part, stored)
    if mark is not None:
        stored.headers.append((PART_HEADER, mark))
    size = metered_bytes([stored])
    if size > MAX_RECORD_BYTES:
        raise RecordTooLargeError(size, MAX_RECORD_BYTES)
    return Entry(stored, part, size)


def fence_entry(token: str) -> Entry:
    """Prepare the command that sets the fencing token."""
    stored = CommandRecord.fence(token)
    return Entry(stored, None, metered_bytes([stored]))


def trim_entry(first_kept: int) -> Entry:
    """Prepare the command that lets records go."""
    first_kept = min(max(first_kept, 0), LARGEST_SEQ)
    stored: StoredRecord = CommandRecord.trim(first_kept)
    return Entry(stored, None, metered_bytes([stored]), first_kept)


def check_batch(entries: Sequence[Entry]) -> None:
    """Refuse what S2 cannot take as one.

    Raises:
        InvalidError: Too many records.
        RecordTooLargeError: Too large together.
    """
    if len(entries) > MAX_BATCH_RECORDS:
        raise InvalidError("records", f"must be at most {MAX_BATCH_RECORDS} in one append")
    size = sum(entry.size for entry in entries)
    if size > MAX_BATCH_BYTES:
        raise RecordTooLargeError(size, MAX_BATCH_BYTES)


def record_of(found: SequencedRecord) -> Record:
    """Return a stored record as the log's readers see it."""
    headers = found.headers
    if headers and headers[-1][0] == PART_HEADER:
        headers = headers[:-1]
    pairs = tuple((_decode(name), _decode(value)) for name, value in headers)
    return Record(found.seq_num, found.timestamp, found.body, pairs)


def part_of(found: StoredRecord | SequencedRecord) -> bytes | None:
    """Return what a stored record is the same by, whoever wrote it; None if it has no id."""
    if found.headers and found.headers[-1][0] == PART_HEADER:
        part = found.headers[-1][1]
        return None if part.startswith(NO_TEXT) else part
    part_id = envelope_id(found.body)
    return None if part_id is None else _encode(part_id)


def is_same(entry: Entry, found: SequencedRecord) -> bool:
    """Tell whether *found* is the very record that was sent."""
    sent = entry.at(found.seq_num)
    return sent.body == found.body and sent.headers == found.headers


def _mark(record: NewRecord, part: bytes | None, stored: StoredRecord) -> bytes | None:
    """Return what our header must hold; None if the record does without."""
    if part is not None:
        assert record.part_id is not None
        is_told = record.body.endswith(_ENVELOPE_ID + encode_json(record.part_id).encode() + b"}")
        if is_told and part_of(stored) == part:
            return None
        return part
    if part_of(stored) is not None:
        # What looks like our header must not be the last one.
        return _new_mark() if stored.headers and stored.headers[-1][0] == PART_HEADER else None
    mark = _new_mark()
    fits = metered_bytes([stored]) + 2 + len(PART_HEADER) + len(mark) <= MAX_RECORD_BYTES
    return mark if fits else None


def _new_mark() -> bytes:
    return NO_TEXT + secrets.token_bytes(8)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decode(raw: bytes) -> str:
    """Read a header, which a stranger may have written."""
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace")
