"""Port: the replication source."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import attrs

from sessions_core.ports.session_index import IndexRow


class ChangeKind(StrEnum):
    """What happened to a session's row."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


@attrs.frozen
class Change:
    """One session's row as a transaction left it; for a delete, as it was before.

    Attributes:
        size: About how many bytes the row has, for those who hold many; 0 if nobody counted.
    """

    kind: ChangeKind
    row: IndexRow
    size: int = attrs.field(default=0, eq=False)


@attrs.frozen(kw_only=True)
class UnreadableChange:
    """A change that cannot be understood, now or later: the row breaks a rule of this version, or part of it is missing.

    Attributes:
        session: The session's id, if at least that can be read.
        version: As in :class:`IndexRow`.
        reason: What is wrong, for people.
        columns: All that was sent, as the store's text; None is null, and what was not sent is not there.
    """

    kind: ChangeKind
    session: str | None
    version: int
    reason: str
    columns: Mapping[str, str | None]


@attrs.frozen(kw_only=True)
class ChangeBatch:
    """Changes of one committed transaction, in its order: all of them, or the next ones where there are too many to hold.

    Attributes:
        position: To be acknowledged once these changes and all before them are in the sink. Never falls; batches of one
            transaction but for its last have the position of the transaction before.
        committed_at: When the transaction was committed, by the store's clock.
    """

    changes: tuple[Change, ...]
    unreadable: tuple[UnreadableChange, ...] = ()
    position: int
    committed_at: datetime


class ChangeStream(Protocol):
    """Committed changes, in the order of their commits.

    Nothing is read ahead while nobody asks for the next batch: memory does not grow with a slow consumer, nor with the size
    of a transaction.
    """

    __slots__ = ()

    @abstractmethod
    def __aiter__(self) -> ChangeStream:
        """Return itself."""

    @abstractmethod
    async def __anext__(self) -> ChangeBatch:
        """Wait for the next batch. The stream has no end of its own.

        Cancelling this loses nothing: the batch comes with the next call.

        Raises:
            StoreUnavailableError: The connection is lost. This stream is over; open another one.
            IncompatibleStoreError: The source is no longer what it must be; says what to do. This stream is over.
        """

    @abstractmethod
    def acknowledge(self, position: int) -> None:
        """Say that every batch with this position, and all before, is in the sink.

        The source is told soon, and when the stream is closed. It may forget these changes then: no stream gives them again.
        Lower positions than one acknowledged before are ignored.

        Raises:
            InvalidError: No batch of this stream has a position as high as that.
        """


class ChangeFeed(Protocol):
    """Streams what changed in the store, at least once.

    A change comes again in every new stream until it has been acknowledged; none is left out. Connecting again is the
    caller's business, as it knows what it has not written yet.
    """

    __slots__ = ()

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[ChangeStream]:
        """Stream changes from the last acknowledged position on; make or check what the source needs for that first.

        Raises:
            StoreInUseError: Somebody else streams from the same place; there is one at a time.
            IncompatibleStoreError: The source is not set up for this, and cannot be from here; says how to do it.
            StoreUnavailableError: No connection.
        """
