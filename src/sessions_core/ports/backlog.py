"""Port: the questions the sweep asks. Each is answered from a partial index, so its cost follows what is left over."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from typing import Protocol

from sessions_core.domain.ids import RunId
from sessions_core.domain.run import Progress, RunRecord
from sessions_core.domain.session import Session


class Backlog(Protocol):
    """What crashes left behind, oldest first, over all environments."""

    __slots__ = ()

    @abstractmethod
    async def list_undispatched(
        self, before: datetime, limit: int, *, after: RunRecord | None = None
    ) -> list[RunRecord]:
        """Return runs waiting for a worker that are not dispatched, were created before *before*, and are due.

        They come by creation and id; if *after* is given, only those behind it.
        """

    @abstractmethod
    async def list_stalled(self, before: datetime, limit: int) -> list[RunRecord]:
        """Return ``EXECUTING`` runs whose last heartbeat is before *before*."""

    @abstractmethod
    async def list_unsettled(self, limit: int) -> list[RunRecord]:
        """Return ended runs that are not settled."""

    @abstractmethod
    async def list_unsealed(self, limit: int) -> list[Session]:
        """Return sessions that are closed or expired but not sealed."""

    @abstractmethod
    async def forget_dispatches(self) -> int:
        """Make every run that waits for a worker undispatched again; return how many there were.

        For an engine whose queue died with its process. Call it before that engine starts.
        """

    @abstractmethod
    async def settle(self, run_id: RunId, end: Progress | None) -> None:
        """Set ``settled_at`` and, if given, ``end``; a run that is settled already stays as it is."""
