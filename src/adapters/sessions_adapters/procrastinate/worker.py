"""The worker's end: taking jobs out of the queue, and keeping the database told about it.

How this works
--------------
A worker has a row, whose heartbeat comes from the event loop: it says that this process can begin what it takes. It takes
one job after another while there is room. A job stays, as being done, until the run has ended; so it can be asked to stop,
and the same run is not taken twice. If the row's heartbeat stops, others put its jobs back. For a run that has not
begun that is all it needs. For one that has, the job does nothing: a run that is executing is taken over when its own
heartbeat stops, by the sweep.

Notifications are hints. Every question is asked again once a poll, and no failure of the database ends anything here.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Final, LiteralString

import anyio
import attrs
import procrastinate

from sessions_adapters.procrastinate import jobs
from sessions_adapters.procrastinate.config import ProcrastinateConfig, WorkerConfig
from sessions_adapters.procrastinate.connecting import ask
from sessions_adapters.procrastinate.failures import FAILURES
from sessions_adapters.procrastinate.listener import ABORT, listen
from sessions_core.domain.ids import RunId
from sessions_core.services.carrier import Carrier, Execute

BEATS_PER_STALL: Final = 7.5
FORGET_SECONDS: Final = 3600.0
"""The row of a worker that has died goes after this."""
CLOSING_SECONDS: Final = 5.0
_logger = logging.getLogger("sessions.procrastinate")
_logger.addHandler(logging.NullHandler())


def _report(run_id: RunId, error: Exception) -> None:
    # The run's own failures are recorded by the executor; this is a store that gave no answer, say. The sweep finds it.
    _logger.error("run was not carried out to its end", extra={"run_id": run_id}, exc_info=error)


@attrs.define(eq=False)
class Worker:
    """Takes jobs and carries their runs out, inside :meth:`serving`."""

    _app: procrastinate.App
    _database: ProcrastinateConfig
    _config: WorkerConfig
    _id: int | None = attrs.field(init=False, default=None)
    _carrier: Carrier = attrs.field(init=False, factory=lambda: Carrier(_report))
    _jobs: dict[RunId, int] = attrs.field(init=False, factory=dict)
    _over: set[int] = attrs.field(init=False, factory=set)
    _news: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _requests: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _endings: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _is_retired: bool = attrs.field(init=False, default=False)

    @asynccontextmanager
    async def serving(
        self, execute: Execute, *, drain: Callable[[], None], patience: timedelta
    ) -> AsyncGenerator[None]:
        """Take jobs inside the block, and carry their runs out with *execute*.

        At its end no more are taken and *drain* is called to ask the runs to end; after *patience* those still busy are
        cancelled.
        """

        async def carry_out(run_id: RunId) -> None:
            try:
                await execute(run_id)
            finally:
                self._over.add(self._jobs.pop(run_id))  # the carrier has one execution of a run at a time
                self._endings.set()

        async with anyio.create_task_group() as tasks:
            for work in (self._listen, self._look_after_jobs, self._live, self._delete_what_is_over):
                tasks.start_soon(self._forever, work)
            try:
                async with self._carrier.carrying(carry_out, drain=drain, patience=patience), self._taking():
                    yield
            finally:
                tasks.cancel_scope.cancel()
                with anyio.move_on_after(CLOSING_SECONDS, shield=True):
                    await self._leave()

    @asynccontextmanager
    async def _taking(self) -> AsyncGenerator[None]:
        """Take jobs inside the block; at its end nobody waits for us to take one."""
        async with anyio.create_task_group() as taking:
            taking.start_soon(self._forever, self._take)
            try:
                yield
            finally:
                taking.cancel_scope.cancel()
                self._is_retired = True
                with anyio.move_on_after(CLOSING_SECONDS, shield=True):
                    await self._quietly(self._retire)

    # --- what goes on all the time ---

    async def _forever(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do *work* again and again, a little later if it failed."""
        while True:
            await self._quietly(work)

    async def _quietly(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except FAILURES:
            _logger.warning("the queue of runs gives no answer; it is asked again", exc_info=True)
            await self._pause()

    async def _take(self) -> None:
        """Take what there is, then wait for news, or for the next poll."""
        self._news = anyio.Event()
        await self._carrier.wait_for_room(self._config.concurrency)
        with anyio.CancelScope(shield=True):  # what was taken is started
            taken = await self._fetch() if self._id is not None else None
            if taken is not None:
                self._start(taken)
                return
        with anyio.move_on_after(self._config.poll.total_seconds()):
            await self._news.wait()

    async def _listen(self) -> None:
        def hear(news: str) -> None:
            (self._requests if ABORT in news else self._news).set()

        await listen(self._database, hear)

    async def _look_after_jobs(self) -> None:
        """Start what was taken without our knowledge, since the answer got lost, and stop what is to be stopped."""
        with anyio.move_on_after(self._config.poll.total_seconds()):
            await self._requests.wait()
        self._requests = anyio.Event()
        if self._id is None:
            return
        known = [*self._jobs.values(), *self._over]
        for row in await self._ask(jobs.LIST_NEWS, worker=self._id, known=known):
            if row["abort_requested"]:
                self._cancel(row["id"])
            elif self._carrier.is_open:
                self._start(jobs.Job(row["id"], row["run_id"]))

    async def _live(self) -> None:
        """Give a sign of life, and look after those who give none any more."""
        if self._id is None or not await self._ask(jobs.BEAT, worker=self._id):
            await self._register()
        await self._ask(jobs.RESCUE, stall=self._config.stall.total_seconds())
        await anyio.sleep(self._config.stall.total_seconds() / BEATS_PER_STALL)

    async def _delete_what_is_over(self) -> None:
        await self._endings.wait()
        self._endings = anyio.Event()
        try:
            await self._delete()
        except FAILURES:
            self._endings.set()
            raise

    # --- single steps ---

    async def _fetch(self) -> jobs.Job | None:
        config = self._config
        rows = await self._ask(
            jobs.FETCH, **self._takes, version=config.version, stall=config.stall.total_seconds(), worker=self._id
        )
        return jobs.Job(rows[0]["id"], rows[0]["run_id"]) if rows else None

    def _start(self, job: jobs.Job) -> None:
        self._jobs[job.run_id] = job.id
        self._carrier.start(job.run_id)

    def _cancel(self, job_id: int) -> None:
        for run_id in [run_id for run_id, known in self._jobs.items() if known == job_id]:
            self._carrier.cancel(run_id)

    async def _delete(self) -> None:
        if over := list(self._over):
            await self._ask(jobs.DELETE, jobs=over, worker=self._id)
            self._over.difference_update(over)

    async def _register(self) -> None:
        await self._ask(jobs.PRUNE, stall=FORGET_SECONDS)
        (row,) = await self._ask(jobs.REGISTER, **self._takes)
        self._id = row["worker_id"]
        if self._is_retired:
            await self._retire()
        self._news.set()

    async def _retire(self) -> None:
        if self._id is not None:
            await self._ask(jobs.RETIRE, worker=self._id)

    async def _leave(self) -> None:
        await self._quietly(self._delete)
        if self._id is not None:
            # What we have taken and not ended is without a worker from now on, so others take it at once.
            gone, self._id = self._id, None
            await self._quietly(partial(self._ask, jobs.UNREGISTER, worker=gone))

    @property
    def _takes(self) -> dict[str, Any]:
        config = self._config
        return {
            "rank": config.rank,
            "tasks": None if config.tasks is None else list(config.tasks),
            "queues": None if config.queues is None else list(config.queues),
        }

    async def _ask(self, statement: LiteralString, **values: Any) -> list[dict[str, Any]]:
        return await ask(self._app, statement, **values)

    async def _pause(self) -> None:
        await anyio.sleep(self._config.poll.total_seconds())
