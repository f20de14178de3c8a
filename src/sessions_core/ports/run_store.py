"""Port: run records. Our table is the truth about a run, whatever engine carries it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from sessions_core.domain.ids import EnvironmentId, RunId
from sessions_core.domain.run import Holding, Progress, RunRecord
from sessions_core.domain.status import RunStatus


class RunStore(Protocol):
    """Keeps run records from their claim to their end. Times are the store's own (the database's)."""

    __slots__ = ()

    @abstractmethod
    async def find(self, environment_id: EnvironmentId, run_id: RunId) -> RunRecord | None:
        """Return the run, or None if this environment has no such run."""

    @abstractmethod
    async def get(self, run_id: RunId) -> RunRecord:
        """Return the run by its id alone, for those who carry runs out.

        Raises:
            RunNotFoundError: No such run.
        """

    @abstractmethod
    async def mark_dispatched(self, run_id: RunId) -> None:
        """Set ``dispatched_at``: the engine has the run."""

    @abstractmethod
    async def begin(self, run_id: RunId, attempt: int) -> RunRecord | None:
        """Begin attempt number *attempt* and take a new epoch.

        Atomic: if the run is alive, is its session's current run, the session is neither closed nor expired, and
        ``attempt - 1`` attempts have begun, then the session's epoch is raised by one, and the run becomes ``EXECUTING``
        with that epoch, *attempt* and a fresh heartbeat. Of concurrent calls with the same *attempt* at most one begins.

        Returns:
            The run as it now is, or None if it may not begin.

        Raises:
            RunNotFoundError: No such run.
        """

    @abstractmethod
    async def beat(self, holdings: Collection[Holding]) -> frozenset[RunId]:
        """Refresh the heartbeat of every holding that is still its run's latest attempt and ``EXECUTING``.

        Returns:
            Runs whose holder must stop: replaced as current run, begun anew, ended, or gone.
        """

    @abstractmethod
    async def finish(
        self,
        holding: Holding,
        status: RunStatus,
        *,
        end: Progress | None = None,
        error: str | None = None,
        last_beat: datetime | None = None,
    ) -> bool:
        """Record the end of an attempt.

        Args:
            holding: Must be the latest attempt of a run that is alive.
            status: A final status.
            end: How far it had come, if it ended by itself.
            error: A short text about a failure, without secrets.
            last_beat: If given, there must have been no heartbeat after this one.

        Returns:
            False, with nothing changed, if the holding is not (or no longer) such an attempt, or has beaten since.
        """
