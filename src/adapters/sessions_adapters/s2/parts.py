"""Which part ids were used on channels lately, and by which records.

How this works
--------------
The ids of a channel are a window of its latest records. They are all in its stream, so a window may be dropped at any time and
is read back when an append asks for it. That is how the windows of all channels together stay within bounds: whenever one was
used, those go that were used the longest ago, as long as there are too many ids or nobody has used them for the time that an id
is remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice, takewhile
from typing import NamedTuple

import attrs


class _Place(NamedTuple):
    seq: int
    timestamp: int


class _Use(NamedTuple):
    size: int
    time: int


@attrs.define(eq=False)
class PartMemory:
    """The part ids of all channels.

    Attributes:
        records: An id is kept while its record is among this many latest ones of its channel …
        milliseconds: … or is no older than this …
        limit: … but of all channels together no more than so many.
    """

    records: int
    milliseconds: int
    limit: int
    _uses: OrderedDict[PartWindow, _Use] = attrs.field(init=False, factory=OrderedDict)
    _size: int = attrs.field(init=False, default=0)

    def note_use(self, window: PartWindow, now: int) -> None:
        """Take note that *window* is in use, and drop others for which that is long ago."""
        self._release(window)
        if len(window):
            self._uses[window] = _Use(len(window), now)
            self._size += len(window)
        while self._uses and (oldest := next(iter(self._uses))) is not window and self._must_go(oldest, now):
            self._release(oldest)
            oldest.drop()

    def _must_go(self, window: PartWindow, now: int) -> bool:
        return self._size > self.limit or self._uses[window].time < now - self.milliseconds

    def _release(self, window: PartWindow) -> None:
        use = self._uses.pop(window, None)
        self._size -= 0 if use is None else use.size


@attrs.define(eq=False)
class PartWindow:
    """The part ids of a channel, in the order of their seqs.

    Attributes:
        is_whole: It holds all ids that are to be remembered; as long as it does not, it holds none.
    """

    _memory: PartMemory
    is_whole: bool = attrs.field(init=False, default=False)
    _places: dict[bytes, _Place] = attrs.field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self._places)

    def find(self, part: bytes | None) -> int | None:
        """Return the seq of the first record with this id."""
        place = None if part is None else self._places.get(part)
        return None if place is None else place.seq

    def begin(self) -> None:
        """Be whole from now on, beginning with nothing."""
        self._places.clear()
        self.is_whole = True

    def add(self, part: bytes | None, seq: int, timestamp: int) -> None:
        """Note a record that follows all noted ones, if those before it are known."""
        if part is not None and self.is_whole:
            self._places.setdefault(part, _Place(seq, timestamp))

    def settle(self, *, next_seq: int, now: int) -> None:
        """Keep what was added within the bounds of the window and of the memory."""
        self.forget(next_seq=next_seq, now=now)
        for part in list(islice(self._places, max(len(self._places) - self._memory.limit, 0))):
            del self._places[part]
        self._memory.note_use(self, now)

    def forget(self, *, next_seq: int, now: int) -> None:
        """Forget ids that are outside of the window."""
        before_seq, before = next_seq - self._memory.records, now - self._memory.milliseconds

        def is_old(part: bytes) -> bool:
            place = self._places[part]
            return place.seq < before_seq and place.timestamp < before

        for part in list(takewhile(is_old, self._places)):
            del self._places[part]

    def drop(self) -> None:
        """Forget everything, so that it has to be read back."""
        self._places.clear()
        self.is_whole = False
