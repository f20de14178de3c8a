"""Port: where changes go that the index will never have."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from sessions_core.ports.change_feed import ChangeKind


@attrs.frozen(kw_only=True)
class DeadLetter:
    """A change that cannot be read, or that the index does not take: not now, and not later.

    Attributes:
        session: The session's id, if that could be read.
        version: As in :class:`~sessions_core.ports.session_index.IndexRow`.
        reason: What is wrong, for people; may repeat parts of *columns*.
        columns: The row by the names of the store's columns, as text; None is null, and what is not known is not there.
    """

    kind: ChangeKind
    session: str | None
    version: int
    reason: str
    columns: Mapping[str, str | None]

    def is_same_as(self, other: DeadLetter) -> bool:
        """Tell whether both are about the same change, whatever was found wrong with it."""
        return (self.kind, self.session, self.version, self.columns) == (
            other.kind,
            other.session,
            other.version,
            other.columns,
        )


class DeadLetters(Protocol):
    """Keeps letters until a person has looked at them."""

    __slots__ = ()

    @abstractmethod
    async def store(self, letters: Sequence[DeadLetter]) -> int:
        """Keep *letters*; when it returns they are durable. Return how many of them are new.

        A letter that is the same as one that is kept changes nothing, so all of them may come again.

        Raises:
            StoreUnavailableError: No answer. Some letters may be kept; storing all of them again is safe.
        """

    @abstractmethod
    async def count(self) -> int:
        """Return how many letters are kept.

        Raises:
            StoreUnavailableError: No answer.
        """

    @abstractmethod
    async def list_latest(self, limit: int) -> list[DeadLetter]:
        """Return up to *limit* letters, the one that came last first.

        Raises:
            StoreUnavailableError: No answer.
        """
