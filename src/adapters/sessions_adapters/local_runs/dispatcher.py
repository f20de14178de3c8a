"""A dispatcher that carries runs out in this process.

Its queue dies with the process, so at the next start every waiting run has to be dispatched again
(``Backlog.forget_dispatches``). A run that is dispatched before :meth:`LocalRunDispatcher.serve` waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import attrs

from sessions_core.domain.ids import RunId
from sessions_core.domain.run import RunRecord
from sessions_core.ports.run_dispatcher import RunDispatcher
from sessions_core.services.carrier import Carrier, Execute

logger = logging.getLogger("sessions.local_runs")
logger.addHandler(logging.NullHandler())


def _report(run_id: RunId, error: Exception) -> None:
    # The run's own failures are recorded by the executor; this is a store that gave no answer, say. The sweep finds the
    # run by its stale heartbeat or its unsettled end.
    logger.error("run was not carried out to its end", extra={"run_id": run_id}, exc_info=error)


@attrs.define(eq=False)
class LocalRunDispatcher(RunDispatcher):
    """Starts each dispatched run as a task of its own."""

    _carrier: Carrier = attrs.field(init=False, factory=lambda: Carrier(_report))
    _early: dict[RunId, None] = attrs.field(init=False, factory=dict)

    async def dispatch(self, run: RunRecord) -> None:
        """Start the run, unless it is running here already."""
        if self._carrier.is_open:
            self._carrier.start(run.id)
        else:
            self._early[run.id] = None

    async def cancel(self, run_id: RunId) -> None:
        """Cancel the run's task, if it runs here."""
        self._early.pop(run_id, None)
        self._carrier.cancel(run_id)

    @asynccontextmanager
    async def serve(self, execute: Execute, *, drain: Callable[[], None], patience: timedelta) -> AsyncGenerator[None]:
        """Carry runs out with *execute* inside the block.

        At its end *drain* is called to ask the runs to end; after *patience* those still busy are cancelled.
        """
        async with self._carrier.carrying(execute, drain=drain, patience=patience):
            for run_id in tuple(self._early):
                self._carrier.start(run_id)
            self._early.clear()
            yield
