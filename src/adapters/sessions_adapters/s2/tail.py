"""What a writer knows of the end of its stream.

How this works
--------------
The writer appends at the seq that it takes for the next one. When S2 says that it is another, somebody else has written:
then what came meanwhile is read, and the writer knows the end again, with the part ids of the others. So ids that another
process has stored are found although nobody told us, and nothing has to be read before an append in the usual case.

Part ids that were stored before the writer knew the stream are read back when an append first asks for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs
from s2_sdk import SequencedRecord, StreamPosition

from sessions_adapters.s2.parts import PartWindow
from sessions_adapters.s2.records import Entry, part_of
from sessions_adapters.s2.stream import Stream
from sessions_core.domain.guard import Guard

LONGEST_GAP: Final = 10_000
"""If more records than this were missed, only the window of part ids is read again."""
BLOCK: Final = 1000


@attrs.define(eq=False)
class KnownTail:
    """The end of one stream as this process knows it.

    Attributes:
        next_seq: Where the next record goes; None if nothing is known.
        guard: The guard while the stream ends there, if that is known.
    """

    _stream: Stream
    _parts: PartWindow
    _now: Callable[[], int]
    _window_bytes: int
    next_seq: int | None = attrs.field(init=False, default=None)
    guard: Guard | None = attrs.field(init=False, default=None)
    _has_parts: bool = attrs.field(init=False, default=False)

    async def ensure(self, *, parts: bool) -> int:
        """Know the end and, if *parts*, the part ids before it; return the next seq."""
        if self.next_seq is None:
            self._move_to(await self._stream.tail())
            self._has_parts = self.next_seq == 0
        assert self.next_seq is not None
        if parts and not self._has_parts:
            await self._load_parts(self.next_seq)
        return self.next_seq

    def find(self, part: bytes | None) -> int | None:
        """Return the seq of the record with this id, if it was stored within the window."""
        self._parts.forget(next_seq=self.next_seq or 0, now=self._now())
        return self._parts.find(part)

    def advance(self, entries: Sequence[Entry], end: StreamPosition, guard: Guard) -> None:
        """Take note that *entries* were stored just before *end*, under *guard* or making it."""
        start = end.seq_num - len(entries)
        for seq, entry in enumerate(entries, start):
            self._parts.add(part_of(entry.stored), seq, end.timestamp)
        self._move_to(end)
        self.guard = guard

    async def catch_up(self) -> None:
        """Learn what others have written."""
        end, start = await self._stream.tail(), self.next_seq
        if start is None or end.seq_num < start or end.seq_num - start > LONGEST_GAP:
            self._forget(end)
            return
        for record in await self._stream.range(start, end.seq_num):
            self._note(record)
        self._move_to(end)

    def _forget(self, end: StreamPosition) -> None:
        self._parts.clear()
        self._has_parts = False
        self._move_to(end)

    def _move_to(self, end: StreamPosition) -> None:
        if end.seq_num != self.next_seq:
            self.guard = None
        self.next_seq = end.seq_num

    def _note(self, record: SequencedRecord) -> None:
        self._parts.add(part_of(record), record.seq_num, record.timestamp)

    async def _load_parts(self, next_seq: int) -> None:
        """Read back to the beginning of the window, block by block, or as far as memory allows."""
        blocks: list[list[SequencedRecord]] = []
        oldest, size, before = self._now() - self._parts.milliseconds, 0, next_seq
        while before > 0 and size < self._window_bytes:
            start = max(before - BLOCK, 0)
            block = await self._stream.range(start, before)
            blocks.append(block)
            size += sum(len(record.body) for record in block)
            before = start
            is_covered = next_seq - before >= self._parts.records
            if not block or (is_covered and block[0].timestamp < oldest):
                break
        for block in reversed(blocks):
            for record in block:
                self._note(record)
        self._has_parts = True
