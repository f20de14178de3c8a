"""What a batch has to hold so that some appends are answered."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from sessions_adapters.s2.records import Entry
from sessions_adapters.s2.requests import Append, answer
from sessions_core.domain.channel import Appended


@attrs.frozen
class _Place:
    """Where a record is: at a seq, or so far behind the batch's start."""

    number: int
    is_new: bool
    is_stored: bool = False

    def at(self, start: int) -> Appended:
        return Appended(self.number if self.is_stored else start + self.number, self.is_new)


@attrs.define(eq=False)
class Plan:
    """The records of some appends that are not stored yet, each part id once, and where every record then is."""

    entries: list[Entry] = attrs.field(init=False, factory=list)
    _places: list[tuple[Append, list[_Place]]] = attrs.field(init=False, factory=list)
    _first: dict[bytes, int] = attrs.field(init=False, factory=dict)

    def add(self, append: Append, find: Callable[[bytes | None], int | None]) -> None:
        """Add an append; *find* tells the seq of those that are stored already."""
        self._places.append((append, [self._place(entry, find(entry.part)) for entry in append.entries]))

    def answer_known(self) -> list[Append]:
        """Answer the appends that need nothing stored; return the others."""
        rest: list[Append] = []
        for append, places in self._places:
            if all(place.is_stored for place in places):
                answer(append, [place.at(0) for place in places])
            else:
                rest.append(append)
        return rest

    def answer(self, start: int) -> None:
        """Answer all, now that the entries are stored from *start* on."""
        for append, places in self._places:
            answer(append, [place.at(start) for place in places])

    def _place(self, entry: Entry, known: int | None) -> _Place:
        if known is not None:
            return _Place(known, is_new=False, is_stored=True)
        if entry.part is not None and entry.part in self._first:
            return _Place(self._first[entry.part], is_new=False)
        index = len(self.entries)
        self.entries.append(entry)
        if entry.part is not None:
            self._first[entry.part] = index
        return _Place(index, is_new=True)
