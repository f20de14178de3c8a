"""Which part ids were used on a channel lately, and by which records."""

from __future__ import annotations

from itertools import takewhile
from typing import NamedTuple

import attrs


class _Place(NamedTuple):
    seq: int
    timestamp: int


@attrs.define(eq=False)
class PartWindow:
    """The part ids of a channel, in the order of their seqs.

    Attributes:
        records: An id is kept while its record is among this many latest ones …
        milliseconds: … or is no older than this.
    """

    records: int
    milliseconds: int
    _places: dict[bytes, _Place] = attrs.field(init=False, factory=dict)

    def find(self, part: bytes | None) -> int | None:
        """Return the seq of the first record with this id."""
        place = None if part is None else self._places.get(part)
        return None if place is None else place.seq

    def add(self, part: bytes | None, seq: int, timestamp: int) -> None:
        """Note a record that follows all noted ones."""
        if part is not None:
            self._places.setdefault(part, _Place(seq, timestamp))

    def forget(self, *, next_seq: int, now: int) -> None:
        """Forget ids that are outside of both windows."""
        before_seq, before = next_seq - self.records, now - self.milliseconds

        def is_old(part: bytes) -> bool:
            place = self._places[part]
            return place.seq < before_seq and place.timestamp < before

        for part in list(takewhile(is_old, self._places)):
            del self._places[part]

    def clear(self) -> None:
        """Forget everything."""
        self._places.clear()
