"""Port: the replication source."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs

from sessions_core.ports.session_index import IndexRow


@attrs.frozen
class Change:
    """One committed transaction's changes to sessions, and the position to acknowledge once they are in the sink."""

    rows: tuple[IndexRow, ...]
    position: int


class ChangeFeed(Protocol):
    """Streams what changed in the store, at least once."""

    __slots__ = ()

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        """Stream changes in commit order from the last acknowledged position on."""

    @abstractmethod
    async def acknowledge(self, position: int) -> None:
        """Say that everything up to *position* is in the sink; it will not be streamed again."""
