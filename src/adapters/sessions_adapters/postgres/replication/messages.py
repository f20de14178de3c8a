"""What Postgres tells in logical replication, as values: the frames of the stream, and the messages of ``pgoutput`` version 1.

Positions are in the log that Postgres writes ahead (its *WAL*): whole numbers that rise.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum, IntFlag
from typing import Final

import attrs


class Unchanged(Enum):
    """Type of :data:`UNCHANGED`."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED
"""Stands for a large value that an update did not touch and that is therefore not sent."""

Value = bytes | None | Unchanged
"""A column's value: its text form, null, or not sent."""
RowValues = tuple[Value, ...]
"""One value per column of the relation."""


@attrs.frozen
class LogData:
    """A frame that carries a message."""

    message: bytes


@attrs.frozen
class Keepalive:
    """A frame without a message.

    Attributes:
        end: All commits before this position have been sent.
        wants_reply: The server would like to hear from us at once.
    """

    end: int
    sent_at: datetime
    wants_reply: bool


Frame = LogData | Keepalive


@attrs.frozen
class Begin:
    """A transaction begins. All that follows until its :class:`Commit` belongs to it, and is committed already.

    Attributes:
        commit_position: Where its commit begins.
    """

    commit_position: int
    committed_at: datetime
    transaction_id: int


@attrs.frozen
class Commit:
    """A transaction ends.

    Attributes:
        commit_position: Where its commit begins.
        end_position: Where its commit ends: acknowledging this acknowledges the transaction.
    """

    commit_position: int
    end_position: int
    committed_at: datetime


@attrs.frozen
class Origin:
    """The transaction came to this server by replication itself."""

    commit_position: int
    name: str


class ReplicaIdentity(Enum):
    """What of the old row is sent along with an update or a delete."""

    DEFAULT = "d"
    NOTHING = "n"
    FULL = "f"
    INDEX = "i"


@attrs.frozen
class Column:
    """A column of a relation; *type* is the number of its type in the server's catalogue."""

    name: str
    type: int
    modifier: int
    is_key: bool


@attrs.frozen
class Relation:
    """A table as it is for the messages that follow. Comes before a table's first row, and again after it was altered."""

    id: int
    schema: str
    name: str
    identity: ReplicaIdentity
    columns: tuple[Column, ...]


@attrs.frozen
class Type:
    """A type that is not built in."""

    id: int
    schema: str
    name: str


@attrs.frozen
class OldRow:
    """What is known of a row as it was.

    Attributes:
        is_whole: All columns are there, not only those of the key.
    """

    values: RowValues
    is_whole: bool


@attrs.frozen
class Insert:
    """A new row."""

    relation: int
    new: RowValues


@attrs.frozen
class Update:
    """A changed row."""

    relation: int
    old: OldRow | None
    new: RowValues


@attrs.frozen
class Delete:
    """A row that is gone."""

    relation: int
    old: OldRow


class TruncateOption(IntFlag):
    """How tables were emptied."""

    CASCADE = 1
    RESTART_IDENTITY = 2


@attrs.frozen
class Truncate:
    """Tables that were emptied at once."""

    relations: tuple[int, ...]
    options: TruncateOption


Message = Begin | Commit | Origin | Relation | Type | Insert | Update | Delete | Truncate
