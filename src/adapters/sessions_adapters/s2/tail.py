"""What a writer knows of the end of its stream.

How this works
--------------
The writer appends at the seq that it takes for the next one. When S2 says that it is another, somebody else has written:
then what came meanwhile is read, and the writer knows the end again, with the part ids of the others. So ids that another
process has stored are found although nobody told us, and nothing has to be read before an append in the usual case.

Part ids that were stored before the writer knew the stream, or were dropped since, are read back when an append asks for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Final, NamedTuple

import attrs
from s2_sdk import StreamPosition

from sessions_adapters.s2.parts import PartMemory, PartWindow
from sessions_adapters.s2.records import Entry, part_of
from sessions_adapters.s2.stream import Stream
from sessions_core.domain.guard import Guard

LONGEST_GAP: Final = 10_000
"""If more records than this were missed, or more bytes than a window has, only the window of part ids is read again."""
BLOCK: Final = 1000


class _Found(NamedTuple):
    part: bytes | None
    seq: int
    timestamp: int


@attrs.define(eq=False)
class KnownTail:
    """The end of one stream as this process knows it.

    Attributes:
        next_seq: Where the next record goes; None if nothing is known.
        guard: The guard while the stream ends there, if that is known.
    """

    _stream: Stream
    _memory: PartMemory
    _now: Callable[[], int]
    _window_bytes: int
    next_seq: int | None = attrs.field(init=False, default=None)
    guard: Guard | None = attrs.field(init=False, default=None)
    _parts: PartWindow = attrs.field(init=False)

    @_parts.default
    def _make_parts(self) -> PartWindow:
        return PartWindow(self._memory)

    async def ensure(self, *, parts: bool) -> int:
        """Know the end and, if *parts*, the part ids before it; return the next seq."""
        next_seq = self.next_seq
        if next_seq is None:
            end = await self._stream.tail()
            next_seq = end.seq_num
            self._move_to(end)
            if next_seq == 0:
                self._parts.begin()
        if parts and not self._parts.is_whole:
            await self._load_parts(next_seq)
        return next_seq

    def find(self, part: bytes | None) -> int | None:
        """Return the seq of the record with this id, if it was stored within the window."""
        self._parts.forget(next_seq=self.next_seq or 0, now=self._now())
        return self._parts.find(part)

    def advance(self, entries: Sequence[Entry], end: StreamPosition, guard: Guard) -> None:
        """Take note that *entries* were stored just before *end*, under *guard* or making it."""
        start = end.seq_num - len(entries)
        self._note(_Found(part_of(entry.stored), seq, end.timestamp) for seq, entry in enumerate(entries, start))
        self._move_to(end)
        self.guard = guard

    async def catch_up(self) -> None:
        """Learn what others have written."""
        end, start = await self._stream.tail(), self.next_seq
        if start is None or end.seq_num < start or end.seq_num - start > LONGEST_GAP:
            self._parts.drop()
        elif self._parts.is_whole and start < end.seq_num:
            found, _ = await self._look(start, end.seq_num, self._window_bytes)
            if found and found[-1].seq + 1 == end.seq_num:
                self._note(found)
            else:
                self._parts.drop()
        self._move_to(end)

    def _move_to(self, end: StreamPosition) -> None:
        if end.seq_num != self.next_seq:
            self.guard = None
        self.next_seq = end.seq_num
        self._parts.settle(next_seq=end.seq_num, now=self._now())

    def _note(self, found: Iterable[_Found]) -> None:
        for part, seq, timestamp in found:
            self._parts.add(part, seq, timestamp)

    async def _load_parts(self, next_seq: int) -> None:
        """Read back to the beginning of the window, block by block, or as far as memory allows."""
        blocks: list[list[_Found]] = []
        oldest, size, before = self._now() - self._memory.milliseconds, 0, next_seq
        while before > 0 and size < self._window_bytes and next_seq - before < self._memory.limit:
            start = max(before - BLOCK, 0)
            block, block_size = await self._look(start, before)
            blocks.append(block)
            size += block_size
            before = start
            is_covered = next_seq - before >= self._memory.records
            if not block or (is_covered and block[0].timestamp < oldest):
                break
        self._parts.begin()
        for block in reversed(blocks):
            self._note(block)
        self._parts.settle(next_seq=next_seq, now=self._now())

    async def _look(self, start: int, end: int, room: float = inf) -> tuple[list[_Found], int]:
        """Look at the records from *start* to before *end*, or until there were *room* bytes; tell how many there were.

        No more of the records themselves than one answer holds is in memory.
        """
        found: list[_Found] = []
        size = 0
        while start < end and size < room and (records := (await self._stream.read(start, end - start)).records):
            found += [_Found(part_of(each), each.seq_num, each.timestamp) for each in records if each.seq_num < end]
            size += sum(len(each.body) for each in records)
            start = records[-1].seq_num + 1
        return found, size
