"""Up to where everything is in the index.

How this works
--------------
Each batch of the feed has a *place* that counts its rows which are not in the index yet. Places form a chain in the order
of their positions. When the last row of a place is in the index, the place leaves the chain: the first one's position may be
acknowledged then; any other one hands its position to the place before, which still has rows. So the oldest row that is not
in the index holds back everything from its position on, and there are never more places than such rows.
"""

from __future__ import annotations

import attrs


@attrs.define(eq=False)
class Place:
    """Batches of the feed that are acknowledged together.

    Attributes:
        begin: The position of the first of them.
        position: That of the last one, which is acknowledged when all their rows are in the index.
        rows: How many rows of them are not.
    """

    begin: int
    before: Place | None = attrs.field(repr=False)
    after: Place | None = attrs.field(init=False, default=None, repr=False)
    position: int = attrs.field(init=False)
    rows: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.position = self.begin


@attrs.define(eq=False)
class Acknowledgements:
    """The places of one stream.

    Attributes:
        safe: Everything up to here is in the index; 0 before anything is.
    """

    safe: int = attrs.field(init=False, default=0)
    _last: Place | None = attrs.field(init=False, default=None)

    def open(self, position: int) -> Place:
        """Return a place for a batch with *position*, which is not lower than any before; count its rows, then close it."""
        place = Place(position, self._last)
        if self._last is not None:
            self._last.after = place
        self._last = place
        return place

    def close(self, place: Place) -> None:
        """Take note that the rows of *place* are counted."""
        if not place.rows:
            self._remove(place)

    def settle(self, place: Place) -> None:
        """Take note that one row of *place* is in the index."""
        place.rows -= 1
        if not place.rows:
            self._remove(place)

    def _remove(self, place: Place) -> None:
        before, after = place.before, place.after
        if before is not None:
            before.position, before.after = place.position, after
        elif after is None or after.begin > place.position:  # parts of one transaction have the same position
            self.safe = place.position
        if after is None:
            self._last = before
        else:
            after.before = before
