"""What has been read from the store and is not in the index yet."""

from __future__ import annotations

from datetime import datetime

import attrs

from sessions_core.domain.ids import SessionId
from sessions_core.ports.change_feed import Change, ChangeBatch, UnreadableChange
from sessions_core.ports.dead_letters import DeadLetter
from sessions_core.services.replication.acknowledgements import Acknowledgements, Place
from sessions_core.services.replication.letters import letter_of_unreadable


@attrs.define(eq=False)
class _Waiting:
    """A session's newest state, held at the place of its oldest one that is not in the index.

    Attributes:
        came: When the oldest one was read, by the caller's timer.
        committed_at: When that one was committed.
    """

    change: Change
    place: Place
    came: float
    committed_at: datetime


@attrs.frozen
class _Unread:
    """A change that cannot be read, as a letter."""

    letter: DeadLetter
    place: Place
    committed_at: datetime
    size: int


@attrs.frozen(kw_only=True)
class FlushBatch:
    """What is written together: at most one change of each session.

    Attributes:
        since: When the oldest of the changes that it stands for was committed.
        size: How many bytes its changes and letters have.
        places: One for each change and letter.
    """

    changes: tuple[Change, ...]
    letters: tuple[DeadLetter, ...]
    since: datetime
    size: int
    places: tuple[Place, ...] = attrs.field(eq=False, repr=False)


@attrs.define(eq=False)
class Pending:
    """Holds rows: those that wait to be written, and those that are being written.

    Of a session that waits only the newest state is held. While one state of a session is being written no other one can be
    taken: two states of one transaction have the same version, so the index could not tell which of them is the newer one.

    Attributes:
        held: How many rows and letters are in memory.
        held_bytes: How many bytes these have.
        waiting_since: By the caller's timer: when the first of those that can be taken came.
    """

    held: int = attrs.field(init=False, default=0)
    held_bytes: int = attrs.field(init=False, default=0)
    waiting_since: float | None = attrs.field(init=False, default=None)
    _rows: dict[SessionId, _Waiting] = attrs.field(init=False, factory=dict)
    _blocked: dict[SessionId, _Waiting] = attrs.field(init=False, factory=dict)
    _under_way: set[SessionId] = attrs.field(init=False, factory=set)
    _unread: list[_Unread] = attrs.field(init=False, factory=list)
    _acknowledgements: Acknowledgements = attrs.field(init=False, factory=Acknowledgements)

    @property
    def safe(self) -> int:
        """Everything up to this position is in the index; 0 before anything is."""
        return self._acknowledgements.safe

    @property
    def waiting(self) -> int:
        """How many rows and letters can be taken."""
        return len(self._rows) + len(self._unread)

    def add(self, batch: ChangeBatch, now: float) -> None:
        """Take what was read at *now*. Its position is not lower than any before."""
        place = self._acknowledgements.open(batch.position)
        for change in batch.changes:
            self._add(change, place, now, batch.committed_at)
        for unreadable in batch.unreadable:
            self._add_unreadable(unreadable, place, batch.committed_at)
        self.held += place.rows
        self._acknowledgements.close(place)
        if self.waiting:
            self._wait_since(now)

    def _add(self, change: Change, place: Place, now: float, committed_at: datetime) -> None:
        session = change.row.session.id
        rows = self._blocked if session in self._under_way else self._rows
        waiting = rows.get(session)
        if waiting is None:
            rows[session] = _Waiting(change, place, now, committed_at)
            place.rows += 1
            self.held_bytes += change.size
        elif change.row.version >= waiting.change.row.version:
            self.held_bytes += change.size - waiting.change.size
            waiting.change = change

    def _add_unreadable(self, change: UnreadableChange, place: Place, committed_at: datetime) -> None:
        size = sum([len(text) for text in change.columns.values() if text is not None])
        self._unread.append(_Unread(letter_of_unreadable(change), place, committed_at, size))
        place.rows += 1
        self.held_bytes += size

    def take(self) -> FlushBatch:
        """Return everything that can be taken, to be written now. There must be something."""
        rows, unread = self._rows.values(), self._unread
        both: list[_Waiting | _Unread] = [*rows, *unread]
        batch = FlushBatch(
            changes=tuple([row.change for row in rows]),
            letters=tuple([one.letter for one in unread]),
            since=min([one.committed_at for one in both]),
            size=sum([row.change.size for row in rows]) + sum([one.size for one in unread]),
            places=tuple([one.place for one in both]),
        )
        self._under_way.update(self._rows)
        self._rows, self._unread, self.waiting_since = {}, [], None
        return batch

    def land(self, batch: FlushBatch) -> None:
        """Take note that *batch* is in the index."""
        self.held -= len(batch.places)
        self.held_bytes -= batch.size
        for place in batch.places:
            self._acknowledgements.settle(place)
        landed = {change.row.session.id for change in batch.changes}
        self._under_way -= landed
        for session in self._blocked.keys() & landed:
            row = self._rows[session] = self._blocked.pop(session)
            self._wait_since(row.came)

    def _wait_since(self, moment: float) -> None:
        self.waiting_since = moment if self.waiting_since is None else min(self.waiting_since, moment)
