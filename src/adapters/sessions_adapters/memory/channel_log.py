"""Channels in memory.

How this works
--------------
A channel is a list of consecutive records, the seq of the first of them, and its guard. A follower has only a position:
it takes what is there from that position on, else it waits for the channel's ``news``. Nothing can run between looking
and waiting, and an append sets the very event that followers wait for, so no wake-up is lost.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Final, Self

import anyio
import attrs
from anyio.lowlevel import checkpoint

from sessions_core.domain.channel import Appended, Batch, Channel, NewRecord, Record, Tail, trim_command
from sessions_core.domain.guard import UNTOUCHED, Guard, GuardChange
from sessions_core.domain.ids import PartId
from sessions_core.errors import ConflictError, GuardMismatchError, TailMismatchError
from sessions_core.ports.channel_log import READ_BYTES, ChannelLog
from sessions_core.ports.clock import Clock

FOLLOWED_AT_ONCE: Final = 1000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


@attrs.frozen
class _Place:
    """Where the record with some part id went, and when."""

    seq: int
    timestamp: int


@attrs.define(eq=False)
class _Contents:
    """All that is known of one channel.

    Attributes:
        records: Those kept; their seqs are consecutive and end before ``next_seq``.
        parts: Outlive a trim. In the order of their seqs, and thereby of their timestamps.
    """

    records: list[Record] = attrs.field(factory=list)
    parts: dict[PartId, _Place] = attrs.field(factory=dict)
    guard: Guard = UNTOUCHED
    next_seq: int = 0
    timestamp: int = 0
    news: anyio.Event = attrs.field(factory=anyio.Event)

    @property
    def first_seq(self) -> int:
        """Seq of the first record that is still kept."""
        return self.next_seq - len(self.records)

    def append(self, records: Sequence[NewRecord], guard: Guard, if_tail: int | None, now: int) -> list[Appended]:
        """Store all of *records* that are not known by their part id, or refuse."""
        refusal = self._refusal(guard, if_tail)
        if refusal is not None and not all(record.part_id in self.parts for record in records):
            raise refusal
        timestamp = max(self.timestamp, now)
        appended = [self._append(record, timestamp) for record in records]
        self._wake()
        return appended

    def _refusal(self, guard: Guard, if_tail: int | None) -> ConflictError | None:
        if guard != self.guard or guard.is_sealed:
            return GuardMismatchError(self.guard)
        return None if if_tail in (None, self.next_seq) else TailMismatchError(self.next_seq)

    def _append(self, record: NewRecord, timestamp: int) -> Appended:
        if record.part_id is not None and record.part_id in self.parts:
            known = self.parts[record.part_id]
            return Appended(known.seq, is_new=False, timestamp=known.timestamp)
        seq = self.next_seq
        self.records.append(Record(seq, timestamp, record.body, record.headers))
        self.next_seq, self.timestamp = seq + 1, timestamp
        if record.part_id is not None:
            self.parts[record.part_id] = _Place(seq, timestamp)
        return Appended(seq, timestamp=timestamp)

    def _wake(self) -> None:
        news, self.news = self.news, anyio.Event()
        news.set()

    def forget_parts(self, *, before_seq: int, before: int) -> None:
        """Forget part ids that are outside of both windows."""

        def is_old(part: PartId) -> bool:
            place = self.parts[part]
            return place.seq < before_seq and place.timestamp < before

        for part in list(takewhile(is_old, self.parts)):
            del self.parts[part]

    def drop_before(self, seq: int) -> None:
        """Let the records before *seq* go, but not the last one."""
        surplus = min(seq, self.next_seq - 1) - self.first_seq
        del self.records[: max(surplus, 0)]

    def batch(self, start: int, limit: int) -> Batch:
        """Return up to *limit* kept records from *start* on, and not much more than the log reads at once."""
        index = max(start - self.first_seq, 0)
        return Batch(tuple(_light(islice(self.records, index, index + limit))), self.next_seq, self.timestamp)

    def before(self, seq: int, limit: int) -> list[Record]:
        """Return up to *limit* kept records before *seq*, newest first, and not much more than the log reads at once."""
        index = min(max(seq - self.first_seq, 0), len(self.records))
        return list(_light(self.records[number] for number in range(index - 1, max(index - limit, 0) - 1, -1)))


def _light(records: Iterable[Record]) -> Iterator[Record]:
    """Give *records* until their bodies come to as much as the log reads at once."""
    left = READ_BYTES
    for record in records:
        yield record
        left -= len(record.body)
        if left <= 0:
            return


@attrs.define(eq=False)
class InMemoryChannelLog(ChannelLog):
    """Keeps every channel in this process, so records do not survive its death.

    Attributes:
        part_window_records: A part id is remembered while its record is among this many latest ones of its channel …
        part_window: … or is no older than this.
    """

    _clock: Clock
    part_window_records: int = attrs.field(default=1000, kw_only=True, validator=attrs.validators.ge(1))
    part_window: timedelta = attrs.field(default=timedelta(minutes=15), kw_only=True)
    _channels: dict[Channel, _Contents] = attrs.field(init=False, factory=dict, repr=False)

    async def append(
        self, channel: Channel, records: Sequence[NewRecord], *, guard: Guard, if_tail: int | None = None
    ) -> list[Appended]:
        await checkpoint()
        return self._append(self._open(channel), records, guard, if_tail)

    def _append(
        self, contents: _Contents, records: Sequence[NewRecord], guard: Guard, if_tail: int | None = None
    ) -> list[Appended]:
        now = (self._clock.now() - _EPOCH) // _MILLISECOND
        contents.forget_parts(
            before_seq=contents.next_seq - self.part_window_records,
            before=now - self.part_window // _MILLISECOND,
        )
        return contents.append(records, guard, if_tail, now)

    async def set_guard(
        self, channel: Channel, new: Guard, *, expect: Guard, if_tail: int | None = None
    ) -> GuardChange:
        await checkpoint()
        contents = self._open(channel)
        is_expected = contents.guard == expect and if_tail in (None, contents.next_seq)
        done = is_expected and expect.rises_to(new)
        if done:
            contents.guard = new
        return GuardChange(done=done, actual=contents.guard, tail=contents.next_seq)

    async def tail(self, channel: Channel) -> Tail:
        await checkpoint()
        contents = self._look_at(channel)
        return Tail(
            next_seq=contents.next_seq,
            first_seq=contents.first_seq,
            timestamp=contents.timestamp,
            guard=contents.guard,
        )

    async def read(self, channel: Channel, start: int, limit: int) -> Batch:
        await checkpoint()
        return self._look_at(channel).batch(start, limit)

    async def read_back(self, channel: Channel, before: int, limit: int) -> list[Record]:
        await checkpoint()
        return self._look_at(channel).before(before, limit)

    @asynccontextmanager
    async def follow(self, channel: Channel, start: int) -> AsyncGenerator[AsyncIterator[Batch]]:
        yield _Reading(self._open(channel), start)

    async def trim(self, channel: Channel, first_kept: int, *, guard: Guard) -> int:
        await checkpoint()
        contents = self._open(channel)
        command = self._append(contents, [trim_command(first_kept)], guard)
        contents.drop_before(first_kept)
        return command[0].seq

    def _open(self, channel: Channel) -> _Contents:
        return self._channels.setdefault(channel, _Contents())

    def _look_at(self, channel: Channel) -> _Contents:
        """Return the contents without leaving a trace: who only looks must not make the log grow."""
        return self._channels.get(channel) or _Contents()


@attrs.define(eq=False)
class _Reading(AsyncIterator[Batch]):
    """An endless reading. Not a generator, so that it can go on after a cancelled wait."""

    _contents: _Contents
    _position: int

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        await checkpoint()
        while not (batch := self._contents.batch(self._position, FOLLOWED_AT_ONCE)).records:
            await self._contents.news.wait()
        self._position = batch.records[-1].seq + 1
        return batch
