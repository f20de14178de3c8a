"""From the rows of the table of sessions to changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

import attrs

from sessions_adapters.postgres.replication.columns import PARSERS, UnreadableValueError
from sessions_adapters.postgres.replication.messages import (
    UNCHANGED,
    Delete,
    Insert,
    OldRow,
    Relation,
    RowValues,
    Update,
    Value,
)
from sessions_adapters.postgres.session_rows import session_of
from sessions_core.errors import StoreUnavailableError
from sessions_core.ports.change_feed import Change, ChangeKind, UnreadableChange
from sessions_core.ports.session_index import IndexRow

if TYPE_CHECKING:
    import asyncpg

TABLE: Final = "session"
ID: Final = "id"
NOT_WHOLE: Final = "the old row was not sent whole: the table's REPLICA IDENTITY is not FULL"

RowMessage = Insert | Update | Delete


class _UnreadableRowError(Exception):
    """A row that no session can be made of."""


def _as_it_is(text: str) -> str:
    return text


@attrs.frozen
class SessionTable:
    """The table as it is for the messages that follow its :class:`Relation`."""

    _columns: tuple[tuple[str, Callable[[str], Any]], ...]

    @classmethod
    def of(cls, relation: Relation) -> SessionTable:
        """Return the table that *relation* describes."""
        return cls(tuple((column.name, PARSERS.get(column.type, _as_it_is)) for column in relation.columns))

    def read(self, message: RowMessage, version: int, size: int) -> Change | UnreadableChange:
        """Return the change of a session that *message* tells of, which was streamed in *size* bytes."""
        kind, values = _last_state(message)
        try:
            if isinstance(message, Delete) and not message.old.is_whole:
                raise _UnreadableRowError(NOT_WHOLE)
            session = session_of(cast("asyncpg.Record", self._parsed(values)))  # it asks for nothing but row[name]
        except _UnreadableRowError as error:
            return self._unreadable(kind, values, version, str(error))
        except StoreUnavailableError as error:
            return self._unreadable(kind, values, version, f"{type(error.__cause__).__name__}: {error.__cause__}")
        return Change(kind, IndexRow(session, version, kind is ChangeKind.DELETE), size)

    def _parsed(self, values: RowValues) -> dict[str, Any]:
        """Return the values by the names of their columns."""
        if len(values) != len(self._columns):
            raise _UnreadableRowError(f"{len(values)} values for {len(self._columns)} columns")
        row: dict[str, Any] = {}
        for (name, parse), value in zip(self._columns, values, strict=True):
            if value is UNCHANGED:
                raise _UnreadableRowError(f"{name}: {NOT_WHOLE}")
            try:
                row[name] = None if value is None else parse(value.decode())
            except (UnreadableValueError, UnicodeDecodeError) as exc:
                raise _UnreadableRowError(f"{name}: {exc}") from exc
        return row

    def _unreadable(self, kind: ChangeKind, values: RowValues, version: int, reason: str) -> UnreadableChange:
        names = (name for name, _ in self._columns)
        sent = {
            name: None if value is None else value.decode(errors="replace")
            for name, value in zip(names, values, strict=False)
            if value is not UNCHANGED
        }
        return UnreadableChange(kind=kind, session=sent.get(ID), version=version, reason=reason, columns=sent)


def _last_state(message: RowMessage) -> tuple[ChangeKind, RowValues]:
    """Return what happened, and the row's values after it; for a delete, before it."""
    match message:
        case Insert(new=new):
            return ChangeKind.INSERT, new
        case Update(old=old, new=new):
            return ChangeKind.UPDATE, _filled(new, old)
        case Delete(old=old):
            return ChangeKind.DELETE, old.values


def _filled(new: RowValues, old: OldRow | None) -> RowValues:
    """Put the old values where nothing changed, if they are there."""
    if UNCHANGED not in new or old is None or not old.is_whole or len(old.values) != len(new):
        return new
    return tuple(_either(value, before) for value, before in zip(new, old.values, strict=True))


def _either(value: Value, before: Value) -> Value:
    return before if value is UNCHANGED else value
