"""Port: all sessions of the store, for an index that has to be filled with those the change feed does not tell of."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from typing import Protocol

import attrs

from sessions_core.domain.ids import SessionId
from sessions_core.ports.change_feed import UnreadableChange
from sessions_core.ports.session_index import IndexRow


@attrs.frozen(kw_only=True)
class ScanChunk:
    """Some sessions, in the order of their ids.

    Attributes:
        rows: Of those that can be understood.
        unreadable: The others.
        last: The last id that was looked at; None if there was none left.
    """

    rows: tuple[IndexRow, ...] = ()
    unreadable: tuple[UnreadableChange, ...] = ()
    last: SessionId | None = None


@attrs.frozen(kw_only=True)
class BackfillProgress:
    """How far a backfill has come.

    Attributes:
        started_at: By the store's clock.
        after: All sessions up to this id are in the index; None: none yet.
        done: How many that were.
        ended_at: When all of them were in the index; None while some are not.
    """

    started_at: datetime
    after: SessionId | None = None
    done: int = 0
    ended_at: datetime | None = None


class SessionScan(Protocol):
    """Reads all sessions, piece by piece, and keeps how far somebody has come with that.

    Raises:
        StoreUnavailableError: No answer, from any method.
        IncompatibleStoreError: The store cannot be read like this; says what to do.
    """

    __slots__ = ()

    @abstractmethod
    async def estimate(self) -> int:
        """Return about how many sessions there are."""

    @abstractmethod
    async def read(self, after: SessionId | None, limit: int) -> ScanChunk:
        """Return the next sessions after the id *after*, *limit* of them at most, and fewer if they are large.

        The versions compare with those of the change feed: a change that is not in these rows has a larger version than
        they, also that of a session's deletion. So the rows may be written at any time, however old they are by then.
        Every session is found that exists from the first call of a pass to its last one; and what changes meanwhile is in
        the change feed, from before the first call on.
        """

    @abstractmethod
    async def find_progress(self) -> BackfillProgress | None:
        """Return what was saved last; None if nothing was, or the change feed has lost its place since then."""

    @abstractmethod
    async def begin(self) -> BackfillProgress:
        """Save that a pass begins, and return that. From now on the change feed keeps what changes."""

    @abstractmethod
    async def save(self, progress: BackfillProgress) -> None:
        """Save how far the pass has come."""

    @abstractmethod
    async def end(self, progress: BackfillProgress) -> BackfillProgress:
        """Save that the pass has come to its end, and return that."""
