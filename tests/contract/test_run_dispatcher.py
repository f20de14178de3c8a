"""What every dispatcher of runs guarantees, seen from the worker at its other end.

A dispatcher does not know how a run ended, and does not ask: the run's record decides whether an execution begins.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial

import anyio
import anyio.abc
import attrs
import pytest
from anyio.lowlevel import checkpoint

from contract.adapters import ServedDispatcher
from contract.makers import at_once, initial, make_session
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import RunRecord

LONG = timedelta(seconds=30)
MOMENT = timedelta(milliseconds=20)


def make_run(name: str = "one", task: str = "echo") -> RunRecord:
    return initial(make_session(name, task=task))


@attrs.define(eq=False)
class Worker:
    """Carries runs out and takes notes. A run goes on until it is let go; a drain lets it go, too, if it is heeded."""

    dispatcher: ServedDispatcher
    drains: int = attrs.field(init=False, default=0)
    heeds_drain: bool = attrs.field(init=False, default=True)
    begun: list[RunId] = attrs.field(init=False, factory=list)
    ended: list[RunId] = attrs.field(init=False, factory=list)
    cancelled: list[RunId] = attrs.field(init=False, factory=list)
    _may_end: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _changed: anyio.Event = attrs.field(init=False, factory=anyio.Event)

    def serve(self, patience: timedelta = LONG) -> AbstractAsyncContextManager[None]:
        return self.dispatcher.serve(self.execute, drain=self.drain, patience=patience)

    async def execute(self, run_id: RunId) -> None:
        self._note(self.begun, run_id)
        try:
            await self._may_end.wait()
        except anyio.get_cancelled_exc_class():
            self._note(self.cancelled, run_id)
            raise
        self._note(self.ended, run_id)

    def drain(self) -> None:
        self.drains += 1
        if self.heeds_drain:
            self.let_go()

    def let_go(self) -> None:
        self._may_end.set()

    def _note(self, where: list[RunId], run_id: RunId) -> None:
        where.append(run_id)
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        with anyio.fail_after(10):
            while not is_so():
                await self._changed.wait()


@pytest.fixture
def worker(run_dispatcher: ServedDispatcher, anyio_backend: str) -> Worker:
    return Worker(run_dispatcher)


# --- dispatch ---


async def test_a_dispatched_run_is_carried_out(run_dispatcher: ServedDispatcher, worker: Worker) -> None:
    run = make_run()
    async with worker.serve():
        await run_dispatcher.dispatch(run)
        await worker.until(lambda: worker.begun == [run.id])
        worker.let_go()
        await worker.until(lambda: worker.ended == [run.id])


async def test_a_run_that_is_dispatched_before_anybody_serves_waits(
    run_dispatcher: ServedDispatcher, worker: Worker
) -> None:
    early, late = make_run("early"), make_run("late")
    await run_dispatcher.dispatch(early)
    await anyio.wait_all_tasks_blocked()
    assert worker.begun == []
    async with worker.serve():
        await run_dispatcher.dispatch(late)
        await worker.until(lambda: len(worker.begun) == 2)
    assert set(worker.begun) == {early.id, late.id}


async def test_a_queued_run_that_is_dispatched_again_is_one_run(
    run_dispatcher: ServedDispatcher, worker: Worker
) -> None:
    run = make_run()
    for _ in range(3):
        await run_dispatcher.dispatch(run)
    async with worker.serve():
        await worker.until(lambda: bool(worker.begun))
        await anyio.wait_all_tasks_blocked()
    assert worker.begun == [run.id]


async def test_an_executing_run_that_is_dispatched_again_is_one_run(
    run_dispatcher: ServedDispatcher, worker: Worker
) -> None:
    run = make_run()
    async with worker.serve():
        await run_dispatcher.dispatch(run)
        await worker.until(lambda: bool(worker.begun))
        await at_once([partial(run_dispatcher.dispatch, run) for _ in range(20)])
        await anyio.wait_all_tasks_blocked()
    assert worker.begun == [run.id]


async def test_of_20_concurrent_dispatches_of_one_run_one_is_carried_out(
    run_dispatcher: ServedDispatcher, worker: Worker
) -> None:
    run = make_run()
    async with worker.serve():
        await at_once([partial(run_dispatcher.dispatch, run) for _ in range(20)])
        await worker.until(lambda: bool(worker.begun))
        await anyio.wait_all_tasks_blocked()
    assert worker.begun == [run.id]


async def test_many_runs_are_carried_out_at_once(run_dispatcher: ServedDispatcher, worker: Worker) -> None:
    runs = [make_run(f"{number}") for number in range(500)]
    async with worker.serve():
        await at_once([partial(run_dispatcher.dispatch, run) for run in runs])
        await worker.until(lambda: len(worker.begun) == len(runs))
        assert worker.ended == []
        worker.let_go()
        await worker.until(lambda: len(worker.ended) == len(runs))
    assert set(worker.ended) == {run.id for run in runs}
    assert len(worker.begun) == len(runs)


async def test_a_run_whose_task_nobody_runs_is_taken_and_hinders_nobody(run_dispatcher: ServedDispatcher) -> None:
    unknown, known = make_run("unknown", task="nobody"), make_run("known")
    tasks, done = {unknown.id: unknown.task, known.id: known.task}, anyio.Event()

    async def execute(run_id: RunId) -> None:
        if tasks[run_id] == "echo":
            done.set()
        await checkpoint()

    async with run_dispatcher.serve(execute, drain=lambda: None, patience=LONG):
        await run_dispatcher.dispatch(unknown)
        await run_dispatcher.dispatch(known)
        with anyio.fail_after(10):
            await done.wait()


async def test_a_run_whose_task_nobody_runs_here_waits_for_one_who_does(
    run_dispatcher: ServedDispatcher, worker: Worker
) -> None:
    async def know_nothing(run_id: RunId) -> None:
        await checkpoint()

    unknown = make_run(task="nobody")
    async with run_dispatcher.serve(know_nothing, drain=lambda: None, patience=LONG):
        await run_dispatcher.dispatch(unknown)
        await anyio.wait_all_tasks_blocked()
    await run_dispatcher.dispatch(unknown)  # as the sweep does, or the next process on the same data
    async with worker.serve():
        await worker.until(lambda: worker.begun == [unknown.id])


# --- cancel ---


async def test_an_executing_run_can_be_cancelled(run_dispatcher: ServedDispatcher, worker: Worker) -> None:
    run, other = make_run(), make_run("other")
    async with worker.serve():
        await run_dispatcher.dispatch(run)
        await run_dispatcher.dispatch(other)
        await worker.until(lambda: len(worker.begun) == 2)
        await run_dispatcher.cancel(run.id)
        await worker.until(lambda: worker.cancelled == [run.id])
        worker.let_go()
        await worker.until(lambda: worker.ended == [other.id])
    assert worker.cancelled == [run.id]


async def test_a_queued_run_can_be_cancelled(run_dispatcher: ServedDispatcher, worker: Worker) -> None:
    run, other = make_run(), make_run("other")
    await run_dispatcher.dispatch(run)
    await run_dispatcher.dispatch(other)
    await run_dispatcher.cancel(run.id)
    async with worker.serve():
        await worker.until(lambda: other.id in worker.begun)
        await anyio.wait_all_tasks_blocked()
    assert worker.begun == [other.id]


async def test_a_run_that_is_cancelled_as_soon_as_it_is_dispatched_does_not_go_on(
    run_dispatcher: ServedDispatcher, worker: Worker
) -> None:
    run, worker.heeds_drain = make_run(), False
    with anyio.fail_after(10):  # much less than the patience with a run that goes on
        async with worker.serve(LONG):
            await run_dispatcher.dispatch(run)
            await run_dispatcher.cancel(run.id)
            await anyio.wait_all_tasks_blocked()
    assert worker.cancelled == worker.begun
    assert worker.ended == []


async def test_cancelling_a_run_that_has_ended_changes_nothing(
    run_dispatcher: ServedDispatcher, worker: Worker
) -> None:
    run, other = make_run(), make_run("other")
    async with worker.serve():
        worker.let_go()
        await run_dispatcher.dispatch(run)
        await worker.until(lambda: worker.ended == [run.id])
        await anyio.wait_all_tasks_blocked()
        await run_dispatcher.cancel(run.id)
        await run_dispatcher.dispatch(other)
        await worker.until(lambda: worker.ended == [run.id, other.id])
    assert worker.cancelled == []


async def test_cancelling_an_unknown_run_changes_nothing(run_dispatcher: ServedDispatcher, worker: Worker) -> None:
    run = make_run()
    await run_dispatcher.cancel(run.id)
    async with worker.serve():
        await run_dispatcher.cancel(run.id)
        await run_dispatcher.dispatch(run)
        await worker.until(lambda: worker.begun == [run.id])
        worker.let_go()
        await worker.until(lambda: worker.ended == [run.id])
    await run_dispatcher.cancel(run.id)


async def test_a_run_can_be_cancelled_any_number_of_times(run_dispatcher: ServedDispatcher, worker: Worker) -> None:
    run = make_run()
    async with worker.serve():
        await run_dispatcher.dispatch(run)
        await worker.until(lambda: bool(worker.begun))
        await at_once([partial(run_dispatcher.cancel, run.id) for _ in range(10)])
        await worker.until(lambda: bool(worker.cancelled))
    assert worker.cancelled == [run.id]


# --- failing ---


async def test_an_execution_that_fails_does_not_hurt_others(run_dispatcher: ServedDispatcher, worker: Worker) -> None:
    runs = [make_run(f"{number}") for number in range(9)]
    failing = {run.id for run in runs[::3]}

    async def execute(run_id: RunId) -> None:
        if run_id in failing:
            raise ValueError(run_id)
        await worker.execute(run_id)

    async with run_dispatcher.serve(execute, drain=worker.drain, patience=LONG):
        for run in runs:
            await run_dispatcher.dispatch(run)
        await worker.until(lambda: len(worker.begun) == 6)
        late = make_run("late")
        await run_dispatcher.dispatch(late)
        await worker.until(lambda: late.id in worker.begun)
        worker.let_go()
        await worker.until(lambda: len(worker.ended) == 7)
    assert worker.cancelled == []


async def test_a_group_of_failures_does_not_hurt_others(run_dispatcher: ServedDispatcher, worker: Worker) -> None:
    failing, other = make_run("failing"), make_run("other")

    async def fail() -> None:
        raise ValueError("mine")

    async def execute(run_id: RunId) -> None:
        async with anyio.create_task_group() as tasks:
            if run_id == failing.id:
                tasks.start_soon(fail)
                tasks.start_soon(fail)
            else:
                await worker.execute(run_id)

    async with run_dispatcher.serve(execute, drain=worker.drain, patience=LONG):
        await run_dispatcher.dispatch(failing)
        await run_dispatcher.dispatch(other)
        await worker.until(lambda: worker.begun == [other.id])
    assert worker.ended == [other.id]


# --- the end of serving ---


async def test_at_the_end_runs_are_asked_to_end_and_may(run_dispatcher: ServedDispatcher, worker: Worker) -> None:
    runs = [make_run(f"{number}") for number in range(5)]
    async with worker.serve():
        for run in runs:
            await run_dispatcher.dispatch(run)
        await worker.until(lambda: len(worker.begun) == 5)
        assert worker.drains == 0
    assert worker.drains == 1
    assert set(worker.ended) == {run.id for run in runs}
    assert worker.cancelled == []


async def test_without_runs_serving_ends_at_once(worker: Worker) -> None:
    with anyio.fail_after(10):
        async with worker.serve():
            pass
    assert worker.drains == 1


async def test_after_the_patience_busy_runs_are_cancelled(run_dispatcher: ServedDispatcher, worker: Worker) -> None:
    run = make_run()
    worker.heeds_drain = False
    with anyio.fail_after(10):
        async with worker.serve(MOMENT):
            await run_dispatcher.dispatch(run)
            await worker.until(lambda: bool(worker.begun))
    assert (worker.drains, worker.cancelled, worker.ended) == (1, [run.id], [])


async def test_before_the_patience_is_over_nobody_is_cancelled(
    run_dispatcher: ServedDispatcher, worker: Worker
) -> None:
    run, worker.heeds_drain = make_run(), False

    async def let_go_later() -> None:
        while not worker.drains:
            await checkpoint()
        await anyio.wait_all_tasks_blocked()
        assert worker.cancelled == []
        worker.let_go()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks, worker.serve():
            await run_dispatcher.dispatch(run)
            await worker.until(lambda: bool(worker.begun))
            tasks.start_soon(let_go_later)
    assert (worker.ended, worker.cancelled) == ([run.id], [])


async def test_a_cancelled_run_may_clean_up_before_serving_ends(run_dispatcher: ServedDispatcher) -> None:
    begun, cleaned_up = anyio.Event(), False

    async def execute(run_id: RunId) -> None:
        nonlocal cleaned_up
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(3):
                    await checkpoint()
                cleaned_up = True

    with anyio.fail_after(10):
        async with run_dispatcher.serve(execute, drain=lambda: None, patience=MOMENT):
            await run_dispatcher.dispatch(make_run())
            await begun.wait()
    assert cleaned_up


async def test_serving_that_is_cancelled_cancels_its_runs_without_patience(
    run_dispatcher: ServedDispatcher, worker: Worker
) -> None:
    run = make_run()
    with anyio.fail_after(10), anyio.CancelScope() as scope:
        async with worker.serve():
            await run_dispatcher.dispatch(run)
            await worker.until(lambda: bool(worker.begun))
            scope.cancel()
            await anyio.sleep_forever()
    assert (worker.drains, worker.ended, worker.cancelled) == (1, [], [run.id])


async def test_a_run_that_is_dispatched_while_serving_ends_is_taken_and_not_begun(
    run_dispatcher: ServedDispatcher, worker: Worker
) -> None:
    first, late = make_run("first"), make_run("late")
    await dispatch_from_within(run_dispatcher, first, late, worker)
    async with worker.serve():
        await worker.until(lambda: worker.begun == [late.id])


async def dispatch_from_within(dispatcher: ServedDispatcher, first: RunRecord, late: RunRecord, worker: Worker) -> None:
    """Let *first* dispatch *late* once it is asked to end, as a run that leaves input behind does."""
    asked = anyio.Event()
    begun = anyio.Event()

    async def execute(run_id: RunId) -> None:
        assert run_id == first.id
        begun.set()
        await asked.wait()
        await dispatcher.dispatch(late)

    with anyio.fail_after(10):
        async with dispatcher.serve(execute, drain=asked.set, patience=LONG):
            await dispatcher.dispatch(first)
            await begun.wait()
    assert worker.begun == []
