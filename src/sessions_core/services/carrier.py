"""Carrying runs out side by side: what every dispatcher does at its worker's end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import anyio.abc
import attrs

from sessions_core.confining import confined
from sessions_core.domain.ids import RunId

Execute = Callable[[RunId], Awaitable[None]]
"""Carries out the next attempt of a run, to its end."""


@attrs.define(eq=False)
class Carrier:
    """Carries out each run as a task of its own, which can be cancelled alone; thousands of idle ones are fine.

    Attributes:
        report: Told what an execution has raised. It does not hurt the others.
    """

    report: Callable[[RunId, Exception], None]
    _execute: Execute | None = attrs.field(init=False, default=None)
    _tasks: anyio.abc.TaskGroup | None = attrs.field(init=False, default=None)
    _scopes: dict[RunId, anyio.CancelScope] = attrs.field(init=False, factory=dict[RunId, anyio.CancelScope])
    _changed: anyio.Event = attrs.field(init=False, factory=anyio.Event)

    @property
    def is_open(self) -> bool:
        """Whether runs may be started."""
        return self._tasks is not None

    @asynccontextmanager
    async def carrying(
        self, execute: Execute, *, drain: Callable[[], None], patience: timedelta
    ) -> AsyncGenerator[None]:
        """Carry out with *execute* what is started inside the block.

        At its end *drain* is called to ask the runs to end; after *patience* those still busy are cancelled.
        """
        async with anyio.create_task_group() as tasks:
            self._execute, self._tasks = execute, tasks
            try:
                yield
            finally:
                self._tasks = None
                drain()
                with anyio.move_on_after(patience.total_seconds(), shield=True):
                    await self.wait_for_room(1)
                tasks.cancel_scope.cancel()

    def start(self, run_id: RunId) -> None:
        """Start the run, unless it is running here already."""
        if run_id not in self._scopes:
            assert self._tasks is not None
            self._scopes[run_id] = anyio.CancelScope()
            self._tasks.start_soon(self._carry_out, run_id)

    def cancel(self, run_id: RunId) -> None:
        """Cancel the run's task, if it runs here."""
        if scope := self._scopes.get(run_id):
            scope.cancel()

    async def wait_for_room(self, limit: int) -> None:
        """Return once fewer than *limit* runs are being carried out."""
        while len(self._scopes) >= limit:
            await self._changed.wait()

    async def _carry_out(self, run_id: RunId) -> None:
        assert self._execute is not None
        try:
            with self._scopes[run_id]:
                await confined(self._execute(run_id))
        except Exception as error:  # noqa: BLE001 - it is reported; the sweep finds what the run has left
            self.report(run_id, error)
        finally:
            del self._scopes[run_id]
            changed, self._changed = self._changed, anyio.Event()
            changed.set()
