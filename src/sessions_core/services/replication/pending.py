"""What has been read from the store and is not in the index yet."""

from __future__ import annotations

from datetime import datetime

import attrs

from sessions_core.domain.ids import SessionId
from sessions_core.ports.change_feed import Change, ChangeBatch
from sessions_core.ports.dead_letters import DeadLetter
from sessions_core.services.replication.acknowledgements import Acknowledgements, Place
from sessions_core.services.replication.letters import letter_of_unreadable


@attrs.define(eq=False)
class _Waiting:
    """A session's newest state, held at the place of its oldest one that is not in the index."""

    change: Change
    place: Place


@attrs.frozen(kw_only=True)
class FlushBatch:
    """What is written together: at most one change of each session.

    Attributes:
        since: When the oldest of the changes that it stands for was committed.
        places: One for each change and letter.
    """

    changes: tuple[Change, ...]
    letters: tuple[DeadLetter, ...]
    since: datetime
    places: tuple[Place, ...] = attrs.field(eq=False, repr=False)


@attrs.define(eq=False)
class Pending:
    """Holds rows: those that wait to be written, and those that are being written.

    Of a session that waits only the newest state is held. A state that came while an older one is being written waits for a
    batch of its own. Both may be under way at once, and the older one may well be written last, after a failure, say; that
    does no harm, as the index keeps the larger version.

    Attributes:
        held: How many rows and letters are in memory.
        waiting_since: By the caller's timer: when the first of those that wait came.
    """

    held: int = attrs.field(init=False, default=0)
    waiting_since: float | None = attrs.field(init=False, default=None)
    _rows: dict[SessionId, _Waiting] = attrs.field(init=False, factory=dict)
    _letters: list[tuple[DeadLetter, Place]] = attrs.field(init=False, factory=list)
    _committed_at: datetime | None = attrs.field(init=False, default=None)
    _acknowledgements: Acknowledgements = attrs.field(init=False, factory=Acknowledgements)

    @property
    def safe(self) -> int:
        """Everything up to this position is in the index; 0 before anything is."""
        return self._acknowledgements.safe

    @property
    def waiting(self) -> int:
        """How many rows and letters wait to be taken."""
        return len(self._rows) + len(self._letters)

    def add(self, batch: ChangeBatch, now: float) -> None:
        """Take what was read at *now*. Its position is not lower than any before."""
        place = self._acknowledgements.open(batch.position)
        before = self.waiting
        for change in batch.changes:
            self._add(change, place)
        for unreadable in batch.unreadable:
            self._letters.append((letter_of_unreadable(unreadable), place))
            place.rows += 1
        self._acknowledgements.close(place)
        self.held += self.waiting - before
        if self.waiting and not before:
            self.waiting_since, self._committed_at = now, batch.committed_at

    def _add(self, change: Change, place: Place) -> None:
        waiting = self._rows.get(change.row.session.id)
        if waiting is None:
            self._rows[change.row.session.id] = _Waiting(change, place)
            place.rows += 1
        elif change.row.version >= waiting.change.row.version:
            waiting.change = change

    def take(self) -> FlushBatch:
        """Return everything that waits, to be written now. There must be something."""
        assert self._committed_at is not None
        rows, letters = self._rows.values(), self._letters
        batch = FlushBatch(
            changes=tuple([row.change for row in rows]),
            letters=tuple([letter for letter, _ in letters]),
            since=self._committed_at,
            places=(*[row.place for row in rows], *[place for _, place in letters]),
        )
        self._rows, self._letters, self.waiting_since, self._committed_at = {}, [], None, None
        return batch

    def land(self, batch: FlushBatch) -> None:
        """Take note that *batch* is in the index."""
        self.held -= len(batch.places)
        for place in batch.places:
            self._acknowledgements.settle(place)
