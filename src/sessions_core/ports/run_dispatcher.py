"""Port: handing runs to whatever executes them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from sessions_core.domain.ids import RunId
from sessions_core.domain.run import RunRecord


class RunDispatcher(Protocol):
    """Carries claimed runs to a worker. Knows nothing of sessions; the run's record decides what happens."""

    __slots__ = ()

    @abstractmethod
    async def dispatch(self, run: RunRecord) -> None:
        """Hand *run* over for execution; when it returns the engine has it (durably, where the engine is durable).

        Idempotent by run id. A run whose task nobody runs here is taken, too: it waits.

        Raises:
            DispatcherUnavailableError: The engine did not take it; dispatch again later.
        """

    @abstractmethod
    async def cancel(self, run_id: RunId) -> None:
        """Stop the run if it is executing or queued. A no-op for a run that has ended or is unknown."""
