"""What an append holds, once it has been read from whatever form it came in; and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

import attrs

from sessions_core.domain.channel import TRIM, Headers, NewRecord, RecordKind, envelope_id, kind_of
from sessions_core.domain.guard import UNTOUCHED, Guard
from sessions_core.domain.ids import RESERVED_PARTS
from sessions_server.data_plane.failures import INVALID, S2Error
from sessions_server.wire.values import MAX_NAME

MAX_RECORDS: Final = 1000
MAX_HEADERS: Final = 10_000
"""Of all records of a batch. S2 has no such limit; without one, a message of two megabytes keeps the server busy for seconds."""
MAX_BYTES: Final = 1_048_576
MAX_TOKEN: Final = 36
FENCE: Final = "fence"
_TRIM_BYTES: Final = 8


class Operation(Enum):
    """What may be done to a stream."""

    APPEND = "append"
    TRIM = "trim"
    FENCE = "fence"
    READ = "read"
    CHECK_TAIL = "check-tail"


@attrs.frozen
class AppendInput:
    """A batch of records, stored together or not at all.

    Attributes:
        match_seq_num: The seq that the first record must get.
        fencing_token: What the stream must be fenced with.
        length: Bytes of the message that it came in, decompressed; 0 if it is not told.
        size: Bytes as S2 meters them.
    """

    records: tuple[NewRecord, ...]
    match_seq_num: int | None = None
    fencing_token: str | None = None
    length: int = attrs.field(default=0, eq=False)
    size: int = attrs.field(init=False)

    @size.default
    def _measure(self) -> int:
        return sum(record.metered_size if record.headers else 8 + len(record.body) for record in self.records)

    @property
    def cost(self) -> int:
        """About how many bytes it takes here."""
        return max(self.size, self.length)

    def __attrs_post_init__(self) -> None:
        if not 1 <= len(self.records) <= MAX_RECORDS:
            raise _invalid(f"A batch has 1 to {MAX_RECORDS} records")
        if self.size > MAX_BYTES:
            raise _invalid(f"A batch has at most {MAX_BYTES} metered bytes")
        if self.fencing_token is not None and len(self.fencing_token.encode(errors="replace")) > MAX_TOKEN:
            raise _invalid(f"A fencing token has at most {MAX_TOKEN} bytes")
        self._check_commands()

    def _check_commands(self) -> None:
        if len(self.records) > 1 and any(_is_command(record) for record in self.records):
            raise _invalid("A command record must be alone in its batch")

    @property
    def operation(self) -> Operation:
        """What is asked for."""
        first = self.records[0]
        if not _is_command(first):
            return Operation.APPEND
        return Operation.TRIM if first.headers[0][1] == TRIM else Operation.FENCE

    @property
    def first_kept(self) -> int:
        """Of a trim: the seq of the first record that is to be kept."""
        return int.from_bytes(self.records[0].body, "big")

    @property
    def new_token(self) -> str:
        """Of a fence: the token."""
        return self.records[0].body.decode()


def make_record(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> NewRecord:
    """Make a record of what came. The id in an envelope is its part id, as for every other writer.

    Raises:
        S2Error: It breaks a rule.
    """
    if not headers:
        part_id = envelope_id(body)
        if part_id is not None and part_id.startswith(RESERVED_PARTS):
            raise _invalid(f"The id of an envelope must not start with {RESERVED_PARTS}")
        if part_id is not None and len(part_id) > MAX_NAME:
            raise _invalid(f"The id of an envelope has at most {MAX_NAME} characters")
        return NewRecord(body, (), part_id)
    record = NewRecord(body, _texts(headers))
    if any(not name for name, _ in record.headers):
        _check_command(record)
    return record


def guard_of(token: str) -> Guard | None:
    """Return the guard that a fencing token is; None if it is no guard of ours."""
    if not token:
        return UNTOUCHED
    try:
        guard = Guard.parse(token)
    except ValueError:
        return None
    return guard if str(guard) == token else None


def _texts(headers: Sequence[tuple[bytes, bytes]]) -> Headers:
    try:
        return tuple((name.decode(), value.decode()) for name, value in headers)
    except UnicodeDecodeError:
        raise _invalid("A header is not valid UTF-8") from None


def _is_command(record: NewRecord) -> bool:
    return kind_of(record.headers) is RecordKind.COMMAND


def _check_command(record: NewRecord) -> None:
    if len(record.headers) != 1:
        raise _invalid("A header without a name makes a command, which has no other header")
    command = record.headers[0][1]
    if command == TRIM:
        if len(record.body) != _TRIM_BYTES:
            raise _invalid("A trim has a body of 8 bytes")
    elif command == FENCE:
        if len(record.body) > MAX_TOKEN:
            raise _invalid(f"A fencing token has at most {MAX_TOKEN} bytes")
        if not _is_utf8(record.body):
            raise _invalid("A fencing token is valid UTF-8")
    else:
        raise _invalid("There is no such command; there are trim and fence")


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _invalid(message: str) -> S2Error:
    return S2Error.of(INVALID, message)


@attrs.frozen
class Position:
    """A place in a stream: a seq, and the arrival of the record there in Unix milliseconds."""

    seq: int
    timestamp: int


@attrs.frozen
class Ack:
    """Where a batch is: from ``start`` to before ``end``; ``tail`` is where the next record goes."""

    start: Position
    end: Position
    tail: Position
