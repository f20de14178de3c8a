"""Ports: the index that lists are read from, and what replication writes into it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

import attrs

from sessions_core.domain.environment import Environment
from sessions_core.domain.pagination import IndexEntry, PageRequest, SessionFilter
from sessions_core.domain.session import Session


class SessionIndex(Protocol):
    """Finds sessions by their properties. May lag behind the store; says so in its adapter's docs.

    What the sessions found are by now is for the caller to ask the store: see ``SessionService.list_sessions``.

    Raises:
        UnavailableError: No answer, from any method; an :class:`~sessions_core.errors.IndexUnavailableError` from an index
            that is a system of its own.
    """

    __slots__ = ()

    @abstractmethod
    async def select(self, environment: Environment, wanted: SessionFilter, request: PageRequest) -> list[IndexEntry]:
        """Return up to ``size + 1`` entries from the request's cursor on.

        The order is ``(created_at, id)`` descending; for ``Direction.BEFORE`` ascending. The row at the cursor itself is
        not returned. Rows that were visible when a walk began appear in it exactly once, both ways. What *wanted* admits
        is defined by :meth:`SessionFilter.admits`.
        """

    @abstractmethod
    async def count(self, environment: Environment, wanted: SessionFilter) -> int:
        """Return how many sessions are wanted."""

    @abstractmethod
    async def list_tags(self, environment: Environment, *, containing: str = "", limit: int = 100) -> list[str]:
        """Return distinct session tags in byte order that contain *containing*, whatever the case."""


@attrs.frozen
class IndexRow:
    """A session as replication writes it. The row with the larger version stays.

    Attributes:
        version: Rises with every commit that changes the session; not negative, and below 2^64. A row that comes again with
            the same version replaces the one before.
        is_deleted: The session is gone from the store. Its last state still tells where the row is.
    """

    session: Session
    version: int = attrs.field(validator=[attrs.validators.ge(0), attrs.validators.lt(2**64)])
    is_deleted: bool = False


class IndexWriter(Protocol):
    """Takes what replication has read from the store."""

    __slots__ = ()

    @abstractmethod
    async def write(self, rows: Sequence[IndexRow]) -> None:
        """Store *rows*; when it returns they are durable. Older versions never replace newer ones.

        Rows may come again, in any order, and several may be about one session: the largest version stays.

        Raises:
            IndexUnavailableError: No answer. Some rows may be stored; writing all of them again is safe.
            IndexRefusedError: At least one row cannot be written, now or later. None of them was.
        """
