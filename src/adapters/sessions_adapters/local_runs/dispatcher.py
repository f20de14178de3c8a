"""A dispatcher that carries runs out in this process.

Its queue dies with the process, so at the next start every waiting run has to be dispatched again
(``Backlog.forget_dispatches``). A run that is dispatched before :meth:`LocalRunDispatcher.serve` waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import anyio.abc
import attrs

from sessions_core.domain.ids import RunId
from sessions_core.domain.run import RunRecord
from sessions_core.ports.run_dispatcher import RunDispatcher

logger = logging.getLogger("sessions.local_runs")
logger.addHandler(logging.NullHandler())


@attrs.define(eq=False)
class LocalRunDispatcher(RunDispatcher):
    """Starts each dispatched run as a task of its own; thousands of idle ones are fine."""

    _execute: Callable[[RunId], Awaitable[None]] | None = attrs.field(init=False, default=None)
    _tasks: anyio.abc.TaskGroup | None = attrs.field(init=False, default=None)
    _scopes: dict[RunId, anyio.CancelScope] = attrs.field(init=False, factory=dict)
    _early: dict[RunId, None] = attrs.field(init=False, factory=dict)
    _idle: anyio.Event = attrs.field(init=False, factory=anyio.Event)

    async def dispatch(self, run: RunRecord) -> None:
        """Start the run, unless it is running here already."""
        if self._tasks is None:
            self._early[run.id] = None
        elif run.id not in self._scopes:
            self._start(run.id)

    async def cancel(self, run_id: RunId) -> None:
        """Cancel the run's task, if it runs here."""
        self._early.pop(run_id, None)
        if scope := self._scopes.get(run_id):
            scope.cancel()

    @asynccontextmanager
    async def serve(
        self, execute: Callable[[RunId], Awaitable[None]], *, drain: Callable[[], None], patience: timedelta
    ) -> AsyncIterator[None]:
        """Carry runs out with *execute* inside the block.

        At its end *drain* is called to ask the runs to end; after *patience* those still busy are cancelled.
        """
        async with anyio.create_task_group() as tasks:
            self._execute, self._tasks = execute, tasks
            for run_id in tuple(self._early):
                self._start(run_id)
            self._early.clear()
            try:
                yield
            finally:
                self._tasks = None
                drain()
                with anyio.move_on_after(patience.total_seconds(), shield=True):
                    await self._until_idle()
                tasks.cancel_scope.cancel()

    @property
    def running(self) -> int:
        """How many runs are being carried out."""
        return len(self._scopes)

    def _start(self, run_id: RunId) -> None:
        assert self._tasks is not None
        self._scopes[run_id] = anyio.CancelScope()
        self._tasks.start_soon(self._carry_out, run_id)

    async def _carry_out(self, run_id: RunId) -> None:
        assert self._execute is not None
        try:
            with self._scopes[run_id]:
                await self._execute(run_id)
        except Exception:
            # The run's own failures are recorded by the executor; this is a store that gave no answer, say. The sweep
            # finds the run by its stale heartbeat or its unsettled end.
            logger.exception("run was not carried out to its end", extra={"run_id": run_id})
        finally:
            del self._scopes[run_id]
            if not self._scopes:
                idle, self._idle = self._idle, anyio.Event()
                idle.set()

    async def _until_idle(self) -> None:
        while self._scopes:
            await self._idle.wait()
