"""Channels and what is in them.

A record is one of three kinds, told apart by its headers alone (docs/reference/records.md):

* *command*: the first header has an empty name (``["", "trim"]``); never delivered, it only moves the reader's cursor;
* *control*: has a header ``trigger-control``; its body is empty;
* *data*: everything else; the body is an envelope ``{"data": …, "id": "<part id>"}``.

The sequence number (*seq*) starts at 0, rises strictly, is never reused, and is shared by all three kinds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, StrEnum
from typing import Any, Final, TypeVar

import attrs

from sessions_core.domain.guard import UNTOUCHED, Guard
from sessions_core.domain.ids import AddressingKey, EnvironmentId, PartId
from sessions_core.domain.json_values import as_list, as_object
from sessions_core.errors import InvalidError, RecordTooLargeError

T = TypeVar("T")
Headers = tuple[tuple[str, str], ...]

MAX_RECORD_BYTES: Final = 1_048_576
LONGEST_INT: Final = 300
DEEPEST: Final = 500
CONTROL_HEADER: Final = "trigger-control"
TURN_COMPLETE: Final = "turn-complete"
UPGRADE_REQUIRED: Final = "upgrade-required"
SESSION_IN_EVENT_ID: Final = "session-in-event-id"
SESSION_CLOSED: Final = "session-closed"
SESSION_CLOSED_REASON: Final = "session-closed-reason"
PUBLIC_ACCESS_TOKEN: Final = "public-access-token"  # noqa: S105 - the name of a header
TRIM: Final = "trim"


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_ASCII_ENCODER: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


class Io(StrEnum):
    """Direction of a channel: ``in`` towards the agent, ``out`` from it."""

    IN = "in"
    OUT = "out"


@attrs.frozen(cache_hash=True)
class Channel:
    """The address of one record log.

    Attributes:
        name: None for a session's own pair; reserved for named side channels.
    """

    environment_id: EnvironmentId
    key: AddressingKey
    io: Io
    name: str | None = None


class RecordKind(Enum):
    """What a record is, by its headers."""

    DATA = "data"
    CONTROL = "control"
    COMMAND = "command"


def kind_of(headers: Headers) -> RecordKind:
    """Tell the kind of a record with *headers*."""
    if not headers:
        return RecordKind.DATA
    if headers[0][0] == "":
        return RecordKind.COMMAND
    return RecordKind.CONTROL if find_header(headers, CONTROL_HEADER) is not None else RecordKind.DATA


def find_header(headers: Headers, name: str) -> str | None:
    """Return the value of the first header called exactly *name*."""
    return next((value for header, value in headers if header == name), None)


@attrs.frozen
class NewRecord:
    """A record before it has a seq.

    Attributes:
        body: Bytes as they are stored and sent; for data records the encoded envelope.
        part_id: If given, a second record with it on the same channel (within the window) is the same record.
    """

    body: bytes
    headers: Headers = ()
    part_id: PartId | None = None

    @property
    def metered_size(self) -> int:
        """Size in bytes as the S2 log counts it."""
        names = sum(2 + len(name.encode()) + len(value.encode()) for name, value in self.headers)
        return 8 + names + len(self.body)

    def check_size(self) -> None:
        """Refuse a record that a log could not take.

        Raises:
            RecordTooLargeError: Over 1 048 576 metered bytes.
        """
        size = self.metered_size if self.headers else 8 + len(self.body)
        if size > MAX_RECORD_BYTES:
            raise RecordTooLargeError(size, MAX_RECORD_BYTES)


@attrs.frozen
class Record:
    """One entry in a channel.

    Attributes:
        timestamp: Arrival, Unix milliseconds; never falls along a channel.
    """

    seq: int
    timestamp: int
    body: bytes
    headers: Headers = ()

    @property
    def kind(self) -> RecordKind:
        """What the record is."""
        return kind_of(self.headers)

    @property
    def control(self) -> str | None:
        """The control subtype, or None if this is no control record."""
        return find_header(self.headers, CONTROL_HEADER) if self.kind is RecordKind.CONTROL else None

    @property
    def data(self) -> Any:
        """What the writer of a data record gave: the envelope's ``data``, or the body as text if it is no envelope."""
        envelope = Envelope.parse(self.body)
        return self.body.decode(errors="replace") if envelope is None else envelope.data

    @property
    def closes_session(self) -> bool:
        """Whether this is the turn-complete with which a session ends; it answers nothing."""
        return self.control == TURN_COMPLETE and self.header(SESSION_CLOSED) == "true"

    def header(self, name: str) -> str | None:
        """Return the value of the first header called exactly *name*."""
        return find_header(self.headers, name)


@attrs.frozen
class Appended:
    """Where one record of an append is.

    Attributes:
        seq: The record's number.
        is_new: False if an earlier append with the same part id had stored it.
        timestamp: Arrival in Unix milliseconds, 0 if the log does not tell; that of a record which is not new may be told too
            late. Says nothing about which record it is, so it is not compared.
    """

    seq: int
    is_new: bool = True
    timestamp: int = attrs.field(default=0, eq=False)


@attrs.frozen(kw_only=True)
class Tail:
    """The end of a channel.

    Attributes:
        next_seq: The seq that the next record will get.
        first_seq: The seq of the first record that is still kept (``next_seq`` if none is).
        timestamp: Unix milliseconds of the last record; 0 for an empty channel.
        guard: What an append must believe in.
    """

    next_seq: int = 0
    first_seq: int = 0
    timestamp: int = 0
    guard: Guard = UNTOUCHED


@attrs.define(eq=False)
class Batch:
    """Consecutive records of one channel, and the tail as it was known when they were read.

    Gaps in the seqs occur only where records were trimmed. The same object goes to every reader, so that
    :meth:`encoded` does its work once however many there are.
    """

    records: tuple[Record, ...]
    next_seq: int
    timestamp: int = 0
    _encodings: dict[Any, Any] = attrs.field(init=False, factory=dict, repr=False)

    def encoded(self, encode: Callable[[Batch], T]) -> T:
        """Return ``encode(self)``, computed once per *encode*."""
        if encode not in self._encodings:
            self._encodings[encode] = encode(self)
        result: T = self._encodings[encode]
        return result

    def since(self, seq: int) -> Batch:
        """Return the part of the batch that begins at *seq*; itself if that is all of it."""
        if not self.records or self.records[0].seq >= seq:
            return self
        return Batch(tuple(r for r in self.records if r.seq >= seq), self.next_seq, self.timestamp)


def encode_json(value: Any) -> str:
    """Write *value* as compact JSON that survives UTF-8 (lone surrogates stay escaped).

    Raises:
        TypeError: *value* is not JSON.
        ValueError: It contains a NaN, an infinity or itself.
    """
    text = _ENCODER.encode(value)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return _ASCII_ENCODER.encode(value)
    return text


def data_record(data: Any, part_id: PartId, *, dedupe: bool = True) -> NewRecord:
    """Make a data record. A text stays a text in ``data``; it is not parsed.

    Args:
        data: Any JSON value.
        part_id: Goes into the envelope, where readers drop records whose id they have seen.
        dedupe: Whether the log shall compare it with earlier part ids; False if it was drawn at random just now.
    """
    body = f'{{"data":{encode_json(data)},"id":{encode_json(part_id)}}}'.encode()
    return NewRecord(body, part_id=part_id if dedupe else None)


def control_record(subtype: str, siblings: Mapping[str, str] | None = None, part_id: PartId | None = None) -> NewRecord:
    """Make a control record: an empty body and the headers ``trigger-control`` and *siblings*."""
    return NewRecord(b"", ((CONTROL_HEADER, subtype), *(siblings or {}).items()), part_id)


def trim_command(first_kept: int) -> NewRecord:
    """Make the command record that says that records before *first_kept* may go."""
    return NewRecord(first_kept.to_bytes(8, "big"), (("", TRIM),))


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(text)
    return number


_READER: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


@attrs.frozen
class Envelope:
    """What the body of a data record says. Anything that is not an envelope has neither data nor id.

    What could not be written again is none: infinities, which some writers spell ``1e999``, and nesting past 500 levels.
    """

    data: Any = None
    id: str = ""

    @classmethod
    def parse(cls, body: bytes) -> Envelope | None:
        """Read a body; None if it is not an envelope."""
        try:
            value = as_object(_READER.decode(body.decode(json.detect_encoding(body), "surrogatepass")))
        except (ValueError, RecursionError):
            return None
        if value is None or "data" not in value or _is_too_deep(value, body):
            return None
        part_id = value.get("id")
        return cls(value["data"], part_id if isinstance(part_id, str) else "")


def _is_too_deep(value: Any, body: bytes) -> bool:
    """Tell whether *value*, which *body* says, is nested so deeply that writing it could fail where reading it did not."""
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return False
    level = [value]
    for _ in range(DEEPEST):
        level = [item for each in level for item in _items(each)]
        if not level:
            return False
    return True


def _items(value: Any) -> Iterable[Any]:
    members = as_object(value)
    return (as_list(value) or ()) if members is None else members.values()


_ENVELOPE_START: Final = b'{"data":'
_ENVELOPE_ID: Final = b',"id":"'


def envelope_id(body: bytes) -> PartId | None:
    """Return the id in an envelope as writers of every kind make it, ``{"data":…,"id":"…"}``, without parsing the data."""
    start = body.rfind(_ENVELOPE_ID)
    if start < 0 or not body.startswith(_ENVELOPE_START) or not body.endswith(b'"}'):
        return None
    text = body[start + len(_ENVELOPE_ID) : -2]
    try:
        # Nearly every id is plain, and then parsing it would cost more than all the rest.
        found = text.decode() if text.isalnum() else json.loads(b'"%b"' % text)
    except ValueError:
        return None
    return PartId(found) if found else None


def sanitise_input(text: str) -> str:
    """Remove a client's claim that its action came from a webhook.

    Only the hosted webhook ingress may say ``payload.actionSource = "webhook"``. Every other text passes unchanged,
    byte for byte.

    Raises:
        InvalidError: Nested so deeply that nobody here can tell what it says, although others might; or the claim is there, and
            beside it a number that cannot be written again.
    """
    if '"actionSource"' not in text and "\\u" not in text:
        return text
    try:
        value = json.loads(text, parse_int=_any_int)
        payload = value["payload"]
        if payload["actionSource"] != "webhook":
            return text
    except RecursionError:
        raise InvalidError("body", "is nested too deeply") from None
    except (ValueError, KeyError, TypeError):
        return text
    del payload["actionSource"]
    return _write_again(value)


def _write_again(value: Any) -> str:
    try:
        return encode_json(value)
    except RecursionError:
        raise InvalidError("body", "is nested too deeply") from None
    except ValueError:  # 1e999 is read as infinity, and NaN is read although it is no JSON
        raise InvalidError("body", "has a number that JSON cannot write") from None


def _any_int(digits: str) -> int | float:
    """Read a whole number of any length: ``int`` refuses the longest, which other readers take."""
    return int(digits) if len(digits) <= LONGEST_INT else float(digits[:LONGEST_INT])


def last_visible(newest_first: Iterable[Record]) -> Record | None:
    """Return the newest record that is not a command, or None if there is none among *newest_first*."""
    return next((record for record in newest_first if record.kind is not RecordKind.COMMAND), None)


def committed_by(record: Record) -> int | None:
    """Return the ``in`` seq that a turn-complete commits, or None for any other record.

    A turn-complete without a readable ``session-in-event-id`` commits nothing and gives -1.
    """
    if record.control != TURN_COMPLETE:
        return None
    value = record.header(SESSION_IN_EVENT_ID)
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 16 else -1
