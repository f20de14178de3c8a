"""Writing channels, within the writer's transaction.

How this works
--------------
All appends of a transaction are placed first, which gives their records seqs in memory, and then stored by one bulk
insert. Nearly every part id is new, so the first try looks none up; if the insert meets a part id that is there
already, the writer rolls back and repeats with looking up. Part ids that have left the window are deleted in bulk,
once for about as many appends as there are part ids to look at, so an append's share does not grow.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import attrs

from sessions_adapters.sqlite.heads import Head, Heads
from sessions_adapters.sqlite.requests import Append
from sessions_core.domain.channel import Appended, Channel, NewRecord, encode_json
from sessions_core.domain.guard import Guard, GuardChange, GuardState
from sessions_core.domain.ids import PartId
from sessions_core.errors import ConflictError, GuardMismatchError, TailMismatchError

INSERT_RECORD: Final = "insert into log (channel, seq, timestamp, body, headers) values (?, ?, ?, ?, ?)"
INSERT_PART: Final = "insert into part (channel, part, seq, timestamp) values (?, ?, ?, ?)"
REPLACE_PART: Final = "insert or replace into part (channel, part, seq, timestamp) values (?, ?, ?, ?)"
FIND_PART: Final = "select seq, timestamp from part where channel = ? and part = ?"
PRUNE_PARTS: Final = "delete from part where channel = ? and seq < ? and timestamp < ?"
COUNT_PARTS: Final = "select count(*) from part where channel = ?"
SET_GUARD: Final = "update channel set guard = ? where id = ?"
SET_TRIM: Final = "update channel set first_seq = ?, swept_seq = ? where id = ?"
DELETE_RECORDS: Final = "delete from log where channel = ? and seq >= ? and seq < ?"

SWEEP_STEP: Final = 500
_PAGE_BYTES: Final = 4096
_PAGES_PER_RECORD: Final = 2


@attrs.define(eq=False)
class LogWriter:
    """Writes channels. Used by the writer's thread alone, in a transaction.

    Attributes:
        now: Unix milliseconds; set once for each transaction.
        pages: A rough count of the pages written since somebody set it to 0.
    """

    _connection: sqlite3.Connection
    _heads: Heads
    _window_records: int
    _window_ms: int
    now: int = 0
    pages: int = 0
    _rows: list[tuple[Any, ...]] = attrs.field(init=False, factory=list)
    _parts: list[tuple[Any, ...]] = attrs.field(init=False, factory=list)
    _fresh: dict[tuple[Channel, PartId], int] = attrs.field(init=False, factory=dict)
    _due: list[Head] = attrs.field(init=False, factory=list)

    def forget(self) -> None:
        """Forget what was learned in a transaction that did not happen."""
        self._heads.forget()
        self._clear()

    def append(self, requests: Sequence[Append], *, look_up: bool) -> None:
        """Store the records of *requests* in their order, and write down where they are.

        Args:
            requests: One that is refused gets its error and changes nothing.
            look_up: Look part ids up first. If False, and one is there already, that is an IntegrityError.
        """
        for request in requests:
            head = self._heads.find(request.channel)
            request.timestamp = max(self.now, head.timestamp)
            request.error = None
            if look_up or _refusal(request, head) is not None:
                self._place_carefully(request, head)
            else:
                stamp = request.timestamp
                request.answer = [
                    Appended(self._place(request, head, record), True, stamp) for record in request.records
                ]
        self._store(REPLACE_PART if look_up else INSERT_PART)

    def _place_carefully(self, request: Append, head: Head) -> None:
        known = self._look_up(request, head)
        refusal = _refusal(request, head)
        if refusal is not None and not all(record.part_id in known for record in request.records):
            request.error = refusal
            return
        answer = []
        for record in request.records:
            part = record.part_id
            seq = None if part is None else known.get(part)
            place = self._place(request, head, record) if seq is None else seq
            answer.append(Appended(place, seq is None, request.timestamp))
            if part is not None and seq is None:
                known[part] = self._fresh[request.channel, part] = answer[-1].seq
        request.answer = answer

    def _look_up(self, request: Append, head: Head) -> dict[PartId, int]:
        """Return the seqs of those part ids that are there, also earlier in this transaction, and in the window."""
        known: dict[PartId, int] = {}
        oldest, since = self._window(head)
        for record in request.records:
            part = record.part_id
            if part is None:
                continue
            if (request.channel, part) in self._fresh:
                known[part] = self._fresh[request.channel, part]
                continue
            row = self._connection.execute(FIND_PART, (head.id, _encode_part(part))).fetchone()
            if row is not None and (row["seq"] >= oldest or row["timestamp"] >= since):
                known[part] = row["seq"]
        return known

    def _window(self, head: Head) -> tuple[int, int]:
        return head.next_seq - self._window_records, self.now - self._window_ms

    def _place(self, request: Append, head: Head, record: NewRecord) -> int:
        """Give *record* the next seq, and remember to store it."""
        if not head.id:
            self._heads.ensure_row(request.channel, head)
        seq = head.next_seq
        stamp = request.timestamp
        self._rows.append((head.id, seq, stamp, record.body, encode_json(record.headers) if record.headers else None))
        if record.part_id is not None:
            self._parts.append((head.id, _encode_part(record.part_id), seq, stamp))
        head.next_seq = seq + 1
        head.timestamp = stamp
        if head.next_seq == head.prune_at:
            self._due.append(head)
        return seq

    def _store(self, part_statement: str) -> None:
        if self._rows:
            self._connection.executemany(INSERT_RECORD, self._rows)
            self.pages += _PAGES_PER_RECORD * len(self._rows) + sum(len(row[3]) for row in self._rows) // _PAGE_BYTES
        if self._parts:
            self._connection.executemany(part_statement, self._parts)
            self.pages += len(self._parts)
        for head in self._due:
            self._prune(head)
        self._clear()

    def _prune(self, head: Head) -> None:
        self._connection.execute(PRUNE_PARTS, (head.id, *self._window(head)))
        kept = self._connection.execute(COUNT_PARTS, (head.id,)).fetchone()[0]
        head.prune_at = head.next_seq + max(self._window_records, kept)

    def _clear(self) -> None:
        self._rows, self._parts, self._fresh, self._due = [], [], {}, []

    def set_guard(self, channel: Channel, new: Guard, *, expect: Guard, if_tail: int | None) -> GuardChange:
        """Compare and set the guard of *channel*."""
        head = self._heads.find(channel)
        fits = head.guard == expect and if_tail in (None, head.next_seq)
        if fits and expect.rises_to(new):
            self._heads.ensure_row(channel, head)
            self._connection.execute(SET_GUARD, (str(new), head.id))
            head.guard = new
            return GuardChange(done=True, actual=new, tail=head.next_seq)
        return GuardChange(done=False, actual=head.guard, tail=head.next_seq)

    def trim(self, request: Append, first_kept: int) -> bool:
        """Store the trim command that *request* consists of, and let go what it lets go; tell as :meth:`sweep` does."""
        self.append([request], look_up=False)
        if request.error is not None or request.answer is None:
            return False
        head = self._heads.find(request.channel)
        head.first_seq = max(head.first_seq, min(first_kept, request.answer[0].seq))
        return self._sweep(head)

    def sweep(self, channel: Channel) -> bool:
        """Delete some of what was let go; tell whether there is more."""
        return self._sweep(self._heads.find(channel))

    def _sweep(self, head: Head) -> bool:
        until = min(head.swept_seq + SWEEP_STEP, head.first_seq)
        self._connection.execute(DELETE_RECORDS, (head.id, head.swept_seq, until))
        self._connection.execute(SET_TRIM, (head.first_seq, until, head.id))
        self.pages += until - head.swept_seq
        head.swept_seq = until
        return until < head.first_seq


def _refusal(request: Append, head: Head) -> ConflictError | None:
    """Tell why records that are not stored yet cannot be."""
    if head.guard != request.guard or head.guard.state is GuardState.SEALED:
        return GuardMismatchError(head.guard)
    return None if request.if_tail is None or request.if_tail == head.next_seq else TailMismatchError(head.next_seq)


def _encode_part(part: PartId) -> bytes:
    return part.encode("utf-8", "surrogatepass")
