"""The sweep: one leader that repairs what crashes left behind.

Every step is idempotent and guarded by a compare-and-set in the store or the log, so a leader that is late, or two of
them, do no harm. A step that fails is reported and tried again a moment later. Steps do not wait for each other: after a
worker with a thousand runs has died, waits time out on time all the same.

Heartbeats may be late although nobody is dead: after this process stood still, and after the store was away, which is
when leaders change. So a run is buried only when its worker has had time to show that it lives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

import anyio
import attrs

from sessions_core.domain.events import RunEnded, SweepDone, SystemFailed
from sessions_core.domain.ids import WaitpointId
from sessions_core.domain.run import Holding, RunRecord
from sessions_core.domain.status import RunStatus
from sessions_core.errors import SessionsError
from sessions_core.ports.backlog import Backlog
from sessions_core.ports.clock import Clock
from sessions_core.ports.leader_lock import LeaderLock
from sessions_core.ports.observer import Observer
from sessions_core.ports.run_store import RunStore
from sessions_core.ports.waitpoint_store import WaitpointStore
from sessions_core.services.closing import Closing
from sessions_core.services.run_manager import RunManager
from sessions_core.services.settlement import Settlement
from sessions_core.services.wait_service import WaitService

T = TypeVar("T")
Step = Callable[[datetime], Awaitable[int]]

AT_ONCE: Final = 8
"""So many things of one kind are repaired at a time."""


@attrs.frozen(kw_only=True)
class SweepConfig:
    """How often and how much.

    Attributes:
        interval: Pause between passes.
        stall: A run without a heartbeat for this long is dead.
        dispatch_grace: A run this young may still be on its way to the engine.
        batch: Rows per question and pass.
    """

    interval: timedelta = timedelta(seconds=1)
    stall: timedelta = timedelta(seconds=15)
    dispatch_grace: timedelta = timedelta(seconds=2)
    batch: int = 200


@attrs.define(kw_only=True)
class Sweep:
    """Finds and repairs what is left over, again and again."""

    backlog: Backlog
    runs: RunStore
    waitpoints: WaitpointStore
    leader: LeaderLock
    run_manager: RunManager
    settlement: Settlement
    closing: Closing
    waits: WaitService
    clock: Clock
    observer: Observer
    config: SweepConfig = attrs.field(factory=SweepConfig)
    _walk: WaitpointId | None = attrs.field(init=False, default=None)
    _waiting_after: RunRecord | None = attrs.field(init=False, default=None)
    _last_pass: datetime | None = attrs.field(init=False, default=None)
    _patient_until: datetime | None = attrs.field(init=False, default=None)
    _deaths: anyio.Event = attrs.field(init=False, factory=anyio.Event)

    async def run_forever(self) -> None:
        """Take every step again and again while this process leads."""
        while True:
            async with self.leader.hold("sweep") as scope:
                with scope:
                    await self._lead()

    async def _lead(self) -> None:
        # Some beats of whoever lives, but less than what the dead are given anyway.
        self._bear_with_all(self.clock.now() + self.config.stall / 2)
        async with anyio.create_task_group() as tasks:
            for step in self._steps:
                tasks.start_soon(self._repeat, step)

    async def _repeat(self, step: Step) -> None:
        may_be_more = step in (self._bury, self._settle)  # of the others, some may be there for good
        while True:
            if await self._take(step) == self.config.batch and may_be_more:
                continue
            with anyio.move_on_after(self.config.interval.total_seconds()):
                await (self._deaths.wait() if step == self._settle else anyio.sleep_forever())

    async def recover(self) -> None:
        """Repair at once what a dead process left, where this process is the only owner of the data.

        Nothing can be running: every executing run is dead, every queue in memory is empty.
        """
        await self.backlog.forget_dispatches()
        everything = self.clock.now() + self.config.stall + timedelta(milliseconds=1)
        while await self._bury_stalled(everything):
            pass
        while await self._settle(everything):
            pass

    async def sweep(self) -> int:
        """Take every step once, one after another; return how many things were repaired."""
        return sum([await self._take(step) for step in self._steps])

    @property
    def _steps(self) -> tuple[Step, ...]:
        return (self._dispatch, self._bury, self._settle, self._seal, self._expire, self._rearm)

    async def _take(self, step: Step) -> int:
        name, started = step.__name__.strip("_"), self.clock.now()
        try:
            repaired = await step(started)
        except SessionsError as error:
            self.observer(SystemFailed(step=name, error=str(error)))
            return 0
        if repaired:
            self.observer(SweepDone(step=name, took=self.clock.now() - started, repaired=repaired))
        return repaired

    async def _dispatch(self, now: datetime) -> int:
        """Walk over the waiting runs, a batch a pass: those that no engine takes for good must not hide the others."""
        before, batch = now - self.config.dispatch_grace, self.config.batch
        waiting = await self.backlog.list_undispatched(before, batch, after=self._waiting_after)
        self._waiting_after = waiting[-1] if len(waiting) == batch else None
        return await self._each("dispatch", waiting, self.run_manager.dispatch)

    def _notice_a_standstill(self, now: datetime) -> None:
        late = self._last_pass is not None and now - self._last_pass > self.config.interval + self.config.stall / 3
        if late:
            self._bear_with_all(now + self.config.stall)
        self._last_pass = now

    def _bear_with_all(self, until: datetime) -> None:
        """Bury nobody before *until*."""
        self._patient_until = until if self._patient_until is None else max(until, self._patient_until)

    async def _bury(self, now: datetime) -> int:
        self._notice_a_standstill(now)
        if self._patient_until is not None and now < self._patient_until:
            return 0
        dead = await self._bury_stalled(now)
        if dead:
            self._deaths.set()  # they are settled without a pause
        return dead

    async def _bury_stalled(self, now: datetime) -> int:
        stalled = await self.backlog.list_stalled(now - self.config.stall, self.config.batch)
        return await self._each("bury", stalled, self._declare_dead)

    async def _declare_dead(self, run: RunRecord) -> None:
        holding = Holding(run.id, run.attempt)
        if await self.runs.finish(holding, RunStatus.CRASHED, error="no heartbeat", last_beat=run.heartbeat_at):
            self.observer(RunEnded(run_id=run.id, status=RunStatus.CRASHED, error="no heartbeat"))

    async def _settle(self, _: datetime) -> int:
        self._deaths = anyio.Event()
        return await self._each("settle", await self.backlog.list_unsettled(self.config.batch), self.settlement.settle)

    async def _seal(self, _: datetime) -> int:
        return await self._each("seal", await self.backlog.list_unsealed(self.config.batch), self.closing.seal)

    async def _expire(self, _: datetime) -> int:
        return await self._each("expire", await self.waitpoints.list_due(self.config.batch), self.waits.expire)

    async def _rearm(self, _: datetime) -> int:
        """Walk over the waiting waitpoints, a batch a pass: complete those whose record has come, register the rest."""
        waiting = await self.waitpoints.list_waiting(self._walk, self.config.batch)
        self._walk = waiting[-1].id if len(waiting) == self.config.batch else None
        await self._each("rearm", waiting, self.waits.arm)
        return 0

    async def _each(self, step: str, items: Sequence[T], act: Callable[[T], Awaitable[object]]) -> int:
        """Do *act* with every one of *items*, some at a time; return how often that succeeded."""
        left, done = iter(items), 0

        async def work() -> None:
            nonlocal done
            for item in left:
                try:
                    await act(item)
                    done += 1
                except SessionsError as error:
                    self.observer(SystemFailed(step=step, error=str(error)))

        async with anyio.create_task_group() as tasks:
            for _ in items[:AT_ONCE]:
                tasks.start_soon(work)
        return done
