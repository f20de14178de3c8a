"""The dispatcher: one job for each run, and a worker at the other end in those processes that carry runs out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import anyio
import attrs
import procrastinate
from procrastinate.exceptions import AlreadyEnqueued

from sessions_adapters.procrastinate.config import ProcrastinateConfig, WorkerConfig
from sessions_adapters.procrastinate.connecting import STATEMENT_SECONDS, ask, open_app
from sessions_adapters.procrastinate.failures import translated
from sessions_adapters.procrastinate.jobs import CANCEL, TASK, Routing
from sessions_adapters.procrastinate.schema import find_problem
from sessions_adapters.procrastinate.worker import Worker
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import RunRecord
from sessions_core.errors import IncompatibleStoreError
from sessions_core.ports.run_dispatcher import RunDispatcher
from sessions_core.services.carrier import Execute


@attrs.define(eq=False)
class ProcrastinateRunDispatcher(RunDispatcher):
    """Hands runs over as jobs. Made by :func:`open_dispatcher`.

    Attributes:
        worker: Which runs :meth:`serve` takes.
    """

    _app: procrastinate.App
    _database: ProcrastinateConfig
    worker: WorkerConfig

    async def dispatch(self, run: RunRecord) -> None:
        """Put a job for the run into the queue, unless one waits there; it is durable when this returns.

        For a run that has a worker already the job waits until that one has ended, and then does nothing.
        """
        routing = Routing.of(run)
        job = self._app.configure_task(
            TASK, allow_unknown=True, queue=routing.queue_name, lock=run.id, queueing_lock=run.id
        )
        told = {"run": run.id, "task": routing.task, "queue": routing.queue, "version": routing.version}
        with translated(), anyio.fail_after(STATEMENT_SECONDS, shield=True), suppress(AlreadyEnqueued):
            await job.defer_async(**told, tags=list(run.config.tags))

    async def cancel(self, run_id: RunId) -> None:
        """Take the run's job out of the queue, or have it stopped by the worker that has it.

        Raises:
            DispatcherUnavailableError: No answer.
        """
        with translated():
            await ask(self._app, CANCEL, run=run_id)

    @asynccontextmanager
    async def serve(self, execute: Execute, *, drain: Callable[[], None], patience: timedelta) -> AsyncGenerator[None]:
        """Take jobs inside the block, and carry their runs out with *execute*.

        At its end no more are taken and *drain* is called to ask the runs to end; after *patience* those still busy are
        cancelled.
        """
        async with Worker(self._app, self._database, self.worker).serving(execute, drain=drain, patience=patience):
            yield


@asynccontextmanager
async def open_dispatcher(
    config: ProcrastinateConfig, worker: WorkerConfig | None = None
) -> AsyncGenerator[ProcrastinateRunDispatcher]:
    """Open the dispatcher.

    Args:
        config: Says where the jobs are.
        worker: Which runs are taken here, if any are.

    Raises:
        IncompatibleStoreError: The schema is not up to date, or newer than this software.
        DispatcherUnavailableError: The database cannot be reached.
    """
    if problem := await find_problem(config):
        raise IncompatibleStoreError(problem)
    async with open_app(config) as app:
        yield ProcrastinateRunDispatcher(app, config, worker or WorkerConfig())
