"""Reading what a request asks for: its kind of content, and the query of a read."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

import attrs

from sessions_core.domain.channel import Record
from sessions_server.bodies import collect
from sessions_server.data_plane.answers import EVENTS, JSON, PROTOBUF, SESSION
from sessions_server.data_plane.compression import decompress, encoding_of
from sessions_server.data_plane.failures import (
    BAD_FRAME,
    BAD_HEADER,
    BAD_PATH,
    BAD_QUERY,
    INVALID,
    S2Error,
)
from sessions_server.data_plane.records import MAX_BYTES, MAX_RECORDS
from sessions_server.exchange import BodyCutError, Exchange
from sessions_server.limits.unfinished_bytes import Share
from sessions_server.problems import BodyTooLargeError

MAX_BODY: Final = 4 * 1024 * 1024
"""Of an append that is no session. JSON of a batch may be several times as large as the batch."""
LONGEST_WAIT: Final = 60
LONGEST_STREAM: Final = 512 * 12
_MAX_UINT64: Final = 2**64 - 1
_NUMBERS: Final = ("seq_num", "timestamp", "tail_offset", "count", "bytes", "until", "wait")
_FLAGS: Final = {"true": True, "false": False}


class Form(Enum):
    """How something is written."""

    JSON = JSON
    PROTOBUF = PROTOBUF
    SESSION = SESSION
    EVENTS = EVENTS


_FORMS: Final = {form.value: form for form in Form} | {"application/x-protobuf": Form.PROTOBUF}


def form_of(header: str | None) -> Form | None:
    """Return the form that the first entry of ``Content-Type`` or ``Accept`` names; None if it names none of ours."""
    if header is None:
        return None
    name = header.partition(",")[0].partition(";")[0].strip().lower()
    if name.startswith("application/") and name.endswith("+json"):
        return Form.JSON
    return _FORMS.get(name)


def answer_form(headers: Mapping[str, str]) -> Form:
    """Return the form of an answer that is sent as a whole."""
    return Form.PROTOBUF if form_of(headers.get("accept")) is Form.PROTOBUF else Form.JSON


def check_encryption(headers: Mapping[str, str]) -> None:
    """Refuse a key: who sends one believes that we encrypt with it.

    Raises:
        S2Error: There is one.
    """
    if "s2-encryption-key" in headers:
        raise S2Error.of(BAD_HEADER, "Streams are not encrypted here")


def parse_segment(segment: str) -> str:
    """Decode a segment of a path, once.

    Raises:
        S2Error: It is no name.
    """
    try:
        name = unquote_to_bytes(segment).decode()
    except UnicodeError:  # also of a segment that was no UTF-8 as it came
        raise S2Error.of(BAD_PATH, "The name of the stream is not valid UTF-8") from None
    if not name or len(name) > LONGEST_STREAM:
        raise S2Error.of(BAD_PATH, "The name of the stream is empty or too long")
    return name


async def read_body(exchange: Exchange, patience: timedelta, share: Share) -> bytes:
    """Return the whole body, decompressed.

    Args:
        exchange: Whose.
        patience: How long it may take to come, and a second more for each 16 KiB of it.
        share: Counts what is held while it comes, and then the body, until it is released.

    Raises:
        RequestTimeoutError: It came too slowly.
        S2Error: It is too large, cannot be decompressed or cannot be read to its end.
        TooMuchUnfinishedError: Too much is held for others.
    """
    encoding = encoding_of(exchange.headers.get("content-encoding"))
    try:
        if exchange.is_body_complete:
            body = b"".join([piece async for piece in exchange.body()])
        else:
            body = await collect(exchange.body(), MAX_BODY, patience, share)
    except BodyTooLargeError:
        raise S2Error.of(INVALID, f"A batch has at most {MAX_BYTES} metered bytes") from None
    except BodyCutError:
        raise S2Error.of(BAD_FRAME, "The body is cut short") from None
    body = decompress(body, encoding, MAX_BODY, "The body")
    share.keep(len(body))
    return body


@attrs.frozen(kw_only=True)
class ReadQuery:
    """From where to where is read.

    Attributes:
        seq_num: Start at this seq; or …
        timestamp: … at the first record that came at this time or later; or …
        tail_offset: … so many before the tail. None of the three is an offset of 0.
        clamp: Whether a start beyond the tail means the tail.
        count: At most so many records …
        bytes: … and metered bytes.
        until: Only records that came before this.
        wait: How many seconds may pass without a record at the tail; None for ever.
    """

    seq_num: int | None = None
    timestamp: int | None = None
    tail_offset: int | None = None
    clamp: bool = False
    count: int | None = None
    bytes: int | None = None
    until: int | None = None
    wait: int | None = None

    @classmethod
    def parse(cls, text: str) -> ReadQuery:
        """Read a query string; members that we do not know are left alone.

        Raises:
            S2Error: A member cannot be read, or two contradict each other.
        """
        given: dict[str, int | bool] = {}
        for name, value in parse_qsl(text, keep_blank_values=True):
            if name in given:
                raise S2Error.of(BAD_QUERY, f"{name} is given twice")
            if name in _NUMBERS:
                given[name] = _number(name, value)
            elif name == "clamp":
                given[name] = _flag(name, value)
        query = cls(**given)  # type: ignore[arg-type]
        query.check()
        return query

    def check(self) -> None:
        """Refuse what contradicts itself."""
        if sum(start is not None for start in (self.seq_num, self.timestamp, self.tail_offset)) > 1:
            raise S2Error.of(INVALID, "Only one of seq_num, timestamp and tail_offset can be given")
        if self.timestamp is not None and self.until is not None and self.timestamp >= self.until:
            raise S2Error.of(INVALID, "timestamp must be before until")

    def for_one_answer(self) -> ReadQuery:
        """Return the query as it counts for an answer that is sent as a whole, which is bounded and waits only so long."""
        return attrs.evolve(
            self,
            count=min(MAX_RECORDS if self.count is None else self.count, MAX_RECORDS),
            bytes=min(MAX_BYTES if self.bytes is None else self.bytes, MAX_BYTES),
            wait=min(self.wait or 0, LONGEST_WAIT),
        )

    def after_event(self, last: str | None) -> ReadQuery:
        """Return the query of a reader that comes back with the ``Last-Event-ID`` *last*: ``seq,count,bytes``.

        Raises:
            S2Error: It is no such id.
        """
        if last is None:
            return self
        parts = last.split(",")
        if len(parts) != 3:
            raise S2Error.of(BAD_HEADER, "Last-Event-ID is seq_num,count,bytes")
        try:
            seq, count, size = (_number("Last-Event-ID", part) for part in parts)
        except S2Error:
            raise S2Error.of(BAD_HEADER, "Last-Event-ID is seq_num,count,bytes") from None
        return attrs.evolve(
            self,
            seq_num=seq + 1,
            timestamp=None,
            tail_offset=None,
            count=None if self.count is None else max(self.count - count, 0),
            bytes=None if self.bytes is None else max(self.bytes - size, 0),
        )

    @property
    def longest_silence(self) -> float:
        """How many seconds may pass without a record at the tail."""
        if self.wait is not None:
            return self.wait
        is_bounded = self.count is not None or self.bytes is not None or self.until is not None
        return 0 if is_bounded else float("inf")


@attrs.define
class Allowance:
    """How much a reading may still give."""

    _until: int | None
    _count: float
    _bytes: float
    given_count: int = 0
    given_bytes: int = 0

    @classmethod
    def of(cls, query: ReadQuery) -> Allowance:
        """Return what *query* allows."""
        unlimited = float("inf")
        return cls(
            query.until,
            unlimited if query.count is None else query.count,
            unlimited if query.bytes is None else query.bytes,
        )

    def take(self, record: Record) -> bool:
        """Count *record* if it may be given; tell whether it may."""
        size = metered_size(record)
        is_late = self._until is not None and record.timestamp >= self._until
        if is_late or self.given_count + 1 > self._count or self.given_bytes + size > self._bytes:
            return False
        self.given_count += 1
        self.given_bytes += size
        return True

    @property
    def is_used_up(self) -> bool:
        """Whether no record at all may follow."""
        return self.given_count >= self._count or self.given_bytes >= self._bytes


def metered_size(record: Record) -> int:
    """Return the size of *record* in bytes as S2 counts it."""
    names = sum(2 + len(_bytes(name)) + len(_bytes(value)) for name, value in record.headers)
    return 8 + names + len(record.body)


def heartbeat_pause() -> float:
    """Return for how many seconds a silent session waits before it says that it is alive."""
    return random.uniform(5, 15)  # noqa: S311 - so that not all sessions speak at once


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > 20 or int(value) > _MAX_UINT64:
        raise S2Error.of(BAD_QUERY, f"{name} must be a number")
    return int(value)


def _flag(name: str, value: str) -> bool:
    if value not in _FLAGS:
        raise S2Error.of(BAD_QUERY, f"{name} must be true or false")
    return _FLAGS[value]
