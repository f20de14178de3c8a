"""From messages to batches of changes: what belongs to a transaction, and what of it concerns sessions.

How this works
--------------
A change's version is the position at which its transaction's commit ends, and that comes last. So messages are held as
they are until then, and decoded while the consumer takes batch after batch. That a table was altered is told among the
rows, just before the first one that looks different, so tables are learned in the same order.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

import attrs

from sessions_adapters.postgres.replication import decoder
from sessions_adapters.postgres.replication.decoder import decode
from sessions_adapters.postgres.replication.held import HeldMessages
from sessions_adapters.postgres.replication.messages import Begin, Commit, Delete, Insert, Relation, Truncate, Update
from sessions_adapters.postgres.replication.reader import MalformedMessageError
from sessions_adapters.postgres.replication.rows import TABLE, RowMessage, SessionTable
from sessions_core.ports.change_feed import Change, ChangeBatch, UnreadableChange

_logger: Final = logging.getLogger("sessions.postgres")
_logger.addHandler(logging.NullHandler())

Found = Change | UnreadableChange


@attrs.define(eq=False)
class Transactions:
    """Takes one message after the other.

    Attributes:
        is_open: A transaction has begun whose end has not come.
    """

    _schema: str
    _batch_size: int
    _batch_bytes: int
    _held: HeldMessages
    is_open: bool = attrs.field(init=False, default=False)
    _tables: dict[int, SessionTable | None] = attrs.field(init=False, factory=dict)
    _before: int = attrs.field(init=False, default=0)

    def take(self, message: bytes) -> Commit | None:
        """Take *message*; if it ends a transaction, return its end: :meth:`batches` has the transaction then.

        Raises:
            MalformedMessageError: It is none, or does not belong here.
        """
        kind = message[:1]
        if kind == decoder.BEGIN:
            self._begin(message)
        elif not self.is_open:
            raise MalformedMessageError(f"message {kind!r} outside a transaction")
        elif kind == decoder.COMMIT:
            self.is_open = False
            commit = decode(message)
            assert isinstance(commit, Commit)
            return commit
        else:
            self._held.add(message)
        return None

    def batches(self, commit: Commit) -> Iterator[ChangeBatch]:
        """Give the changes of the transaction that ended with *commit*; nothing if none of them concerns sessions.

        To be read to its end before the next message is taken.

        Raises:
            MalformedMessageError: One of its messages is none.
        """
        found: list[Found] = []
        size = 0
        for change, streamed in self._changes(commit.end_position):
            if len(found) == self._batch_size or size >= self._batch_bytes:
                yield _batch(found, self._before, commit)
                found, size = [], 0
            found.append(change)
            size += streamed
        self._held.clear()
        if found:
            self._before = commit.end_position
            yield _batch(found, commit.end_position, commit)

    def close(self) -> None:
        """Forget everything."""
        self._held.clear()

    def _begin(self, message: bytes) -> None:
        if self.is_open:
            raise MalformedMessageError("a transaction begins inside another one")
        begin = decode(message)
        assert isinstance(begin, Begin)
        self.is_open = True

    def _changes(self, version: int) -> Iterator[tuple[Found, int]]:
        """Give each change, and how many bytes were streamed for it."""
        for raw in self._held:
            message = decode(raw)
            match message:
                case Insert() | Update() | Delete():
                    table = self._table(message)
                    if table is not None:
                        yield table.read(message, version, len(raw)), len(raw)
                case Relation():
                    self._learn(message)
                case Truncate():
                    self._report(message)
                case Begin() | Commit():
                    raise MalformedMessageError("a transaction inside another one")
                case _:
                    pass

    def _learn(self, relation: Relation) -> None:
        is_ours = (relation.schema, relation.name) == (self._schema, TABLE)
        self._tables[relation.id] = SessionTable.of(relation) if is_ours else None

    def _table(self, message: RowMessage) -> SessionTable | None:
        try:
            return self._tables[message.relation]
        except KeyError as exc:
            raise MalformedMessageError(f"a row of relation {message.relation}, which was not described") from exc

    def _report(self, message: Truncate) -> None:
        if any(self._tables.get(relation) for relation in message.relations):
            _logger.error("the table of sessions was truncated; what the index knows of its sessions stays there")


def _batch(found: list[Found], position: int, commit: Commit) -> ChangeBatch:
    return ChangeBatch(
        changes=tuple([change for change in found if isinstance(change, Change)]),
        unreadable=tuple([change for change in found if isinstance(change, UnreadableChange)]),
        position=position,
        committed_at=commit.committed_at,
    )
