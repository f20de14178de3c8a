"""Jobs outlive servers that are killed, connections that are cut, and workers that die."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import asyncpg
import attrs
import pytest
from psycopg_pool.base import AttemptWithBackoff

from contract.makers import initial, make_session
from harness.databases import JOBS_SCHEMA
from harness.postgres import PostgresProcess
from sessions_adapters import procrastinate
from sessions_adapters.procrastinate import ProcrastinateConfig, ProcrastinateRunDispatcher, WorkerConfig, connecting
from sessions_adapters.procrastinate.connecting import STATEMENT_SECONDS
from sessions_adapters.procrastinate.jobs import Job
from sessions_adapters.procrastinate.worker import Worker
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import RunRecord
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.errors import DispatcherUnavailableError

pytestmark = [pytest.mark.needs_postgres, pytest.mark.kill]

if TYPE_CHECKING:
    Admin = asyncpg.Connection[asyncpg.Record]

SOON = 15.0
LONG = timedelta(seconds=30)
END_BACKENDS = """
    select count(pg_terminate_backend(pid)) from pg_stat_activity
    where datname = current_database() and application_name = 'sessions'
"""
JOBS = "select count(*) from procrastinate_jobs"
TELL = "select pg_notify('procrastinate_any_queue_v1', $1)"


def make_run(name: str = "one") -> RunRecord:
    return initial(make_session(name))


@attrs.define(eq=False)
class Hands:
    """Carries runs out and takes notes. A run goes on until it is let go."""

    begun: list[RunId] = attrs.field(factory=list)
    ended: list[RunId] = attrs.field(factory=list)
    cancelled: list[RunId] = attrs.field(factory=list)
    free: anyio.Event = attrs.field(factory=anyio.Event)

    async def execute(self, run_id: RunId) -> None:
        self.begun.append(run_id)
        try:
            await self.free.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(run_id)
            raise
        self.ended.append(run_id)

    async def until(self, where: list[RunId], *runs: RunRecord) -> None:
        with anyio.fail_after(SOON):
            while not {run.id for run in runs} <= set(where):
                await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(
    config: ProcrastinateConfig, worker: WorkerConfig, hands: Hands | None = None
) -> AsyncGenerator[ProcrastinateRunDispatcher]:
    """Open a dispatcher, and serve with *hands*, if there are any."""
    async with procrastinate.open_dispatcher(config, worker) as dispatcher:
        if hands is None:
            yield dispatcher
            return
        async with dispatcher.serve(hands.execute, drain=hands.free.set, patience=LONG):
            yield dispatcher


async def until_empty(admin: Admin) -> None:
    with anyio.fail_after(SOON):
        while await admin.fetchval(JOBS):
            await asyncio.sleep(0.01)


async def test_a_dispatched_run_outlives_a_server_that_is_killed(server: PostgresProcess, worker: WorkerConfig) -> None:
    config, hands = ProcrastinateConfig(url=server.url), Hands()
    await procrastinate.migrate(config)
    runs = [make_run(f"{number}") for number in range(20)]
    async with opened(config, worker) as dispatcher:
        for run in runs:
            await dispatcher.dispatch(run)
    server.kill()
    server.start()
    async with opened(config, worker, hands):
        await hands.until(hands.begun, *runs)


async def test_while_the_server_is_away_runs_go_on_and_afterwards_everything_does(
    server: PostgresProcess, worker: WorkerConfig
) -> None:
    config, hands = ProcrastinateConfig(url=server.url, timeout=timedelta(seconds=1)), Hands()
    await procrastinate.migrate(config)
    before, after = make_run("before"), make_run("after")
    async with opened(config, worker, hands) as dispatcher:
        await dispatcher.dispatch(before)
        await hands.until(hands.begun, before)
        server.kill()
        with pytest.raises(DispatcherUnavailableError):
            await dispatcher.dispatch(after)
        server.start()
        assert hands.cancelled == []
        await dispatcher.dispatch(after)
        await hands.until(hands.begun, after)
        await dispatcher.cancel(after.id)
        await hands.until(hands.cancelled, after)
        hands.free.set()
        await hands.until(hands.ended, before)


async def test_after_a_long_outage_the_queue_is_asked_as_soon_as_its_server_is_back(
    server: PostgresProcess, worker: WorkerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AttemptWithBackoff, "INITIAL_DELAY", 60.0)  # the driver's pause after a minute
    config, hands, run = ProcrastinateConfig(url=server.url, timeout=timedelta(seconds=1)), Hands(), make_run()
    await procrastinate.migrate(config)
    async with opened(config, worker, hands) as dispatcher:
        server.kill()
        for _ in range(2):
            with pytest.raises(DispatcherUnavailableError):
                await dispatcher.dispatch(run)
        server.start()
        await dispatched(dispatcher, run)
        await hands.until(hands.begun, run)
        hands.free.set()


async def dispatched(dispatcher: ProcrastinateRunDispatcher, run: RunRecord) -> None:
    """Dispatch again and again, as the sweep does."""
    with anyio.fail_after(SOON):
        while True:
            try:
                return await dispatcher.dispatch(run)
            except DispatcherUnavailableError:
                await asyncio.sleep(0.1)


async def test_a_queue_that_somebody_has_locked_holds_a_dispatch_up_for_a_moment_only(
    config: ProcrastinateConfig, worker: WorkerConfig, admin: Admin
) -> None:
    run, hands = make_run(), Hands()
    async with opened(config, worker) as dispatcher:
        async with admin.transaction():
            await admin.execute("lock table procrastinate_jobs in access exclusive mode")
            began = anyio.current_time()
            with pytest.raises(DispatcherUnavailableError):
                await dispatcher.dispatch(run)
            assert anyio.current_time() - began < STATEMENT_SECONDS - 2
        await dispatched(dispatcher, run)
    async with opened(config, worker, hands):
        await hands.until(hands.begun, run)
        hands.free.set()


async def test_a_schema_that_is_made_anew_is_used_by_those_who_knew_the_old_one(
    config: ProcrastinateConfig, worker: WorkerConfig, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "LIFETIME", timedelta(seconds=1))
    hands, after = Hands(), make_run("after")
    async with opened(config, worker) as dispatcher:
        for number in range(10):  # so often that the driver has prepared what it sends
            await dispatcher.dispatch(make_run(f"{number}"))
        await admin.execute(f"drop schema {JOBS_SCHEMA} cascade")
        with pytest.raises(DispatcherUnavailableError):
            await dispatcher.dispatch(after)
        await procrastinate.migrate(config)
        await dispatched(dispatcher, after)
    async with opened(config, worker, hands):
        await hands.until(hands.begun, after)
        hands.free.set()


@pytest.mark.parametrize("news", ["hello", "", "[]", '{"type": "job_inserted"}', "null", "abort_job_requested"])
async def test_what_others_say_in_the_database_ends_nothing(
    config: ProcrastinateConfig, worker: WorkerConfig, admin: Admin, news: str
) -> None:
    hands, first, second = Hands(), make_run("first"), make_run("second")
    async with opened(config, worker, hands) as dispatcher:
        await dispatcher.dispatch(first)
        await hands.until(hands.begun, first)
        await admin.execute(TELL, news)
        await dispatcher.dispatch(second)
        await hands.until(hands.begun, second)
        hands.free.set()
    assert hands.cancelled == []


async def test_a_job_of_another_application_that_is_to_be_stopped_stops_none_of_ours(
    config: ProcrastinateConfig, worker: WorkerConfig, admin: Admin
) -> None:
    hands, first, second = Hands(), make_run("first"), make_run("second")
    async with opened(config, worker, hands) as dispatcher:
        await dispatcher.dispatch(first)
        await hands.until(hands.begun, first)
        number = await admin.fetchval("select id from procrastinate_jobs")
        await admin.execute(TELL, json.dumps({"type": "abort_job_requested", "job_id": number}))
        await dispatcher.dispatch(second)
        await hands.until(hands.begun, second)
        assert hands.cancelled == [], "the other application's number is ours by chance"
        await dispatcher.cancel(first.id)
        await hands.until(hands.cancelled, first)
        hands.free.set()
    assert hands.cancelled == [first.id]


async def test_when_all_connections_are_cut_jobs_are_taken_and_stopped_all_the_same(
    config: ProcrastinateConfig, worker: WorkerConfig, admin: Admin
) -> None:
    hands, runs = Hands(), [make_run(f"{number}") for number in range(5)]
    async with opened(config, worker, hands) as dispatcher:
        for run in runs:
            await dispatcher.dispatch(run)
            await hands.until(hands.begun, run)
            assert await admin.fetchval(END_BACKENDS) >= 1
        await dispatcher.cancel(runs[0].id)
        await hands.until(hands.cancelled, runs[0])
        assert await admin.fetchval(END_BACKENDS) >= 1
        hands.free.set()
        await until_empty(admin)
    assert hands.cancelled == [runs[0].id]


async def test_a_job_that_was_taken_without_an_answer_is_carried_out_all_the_same(
    config: ProcrastinateConfig, worker: WorkerConfig, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands, run, fetch = Hands(), make_run(), Worker._fetch
    lost: list[Job] = []

    async def lose_the_answer(self: Worker) -> Job | None:
        job = await fetch(self)
        if job is not None and not lost:
            lost.append(job)
            raise OSError("the connection broke")
        return job

    monkeypatch.setattr(Worker, "_fetch", lose_the_answer)
    async with opened(config, worker, hands) as dispatcher:
        await dispatcher.dispatch(run)
        await hands.until(hands.begun, run)
        hands.free.set()
        await until_empty(admin)
    assert (len(lost), hands.begun) == (1, [run.id])


async def test_what_a_dead_worker_had_taken_is_given_to_another(
    config: ProcrastinateConfig, worker: WorkerConfig, admin: Admin
) -> None:
    hands, run = Hands(), make_run()
    async with opened(config, worker) as dispatcher:
        await dispatcher.dispatch(run)
    taken = """
        with worker as (insert into procrastinate_workers default values returning id)
        update procrastinate_jobs set status = 'doing', worker_id = worker.id from worker
    """
    await admin.execute(taken)
    async with opened(config, worker, hands):
        await asyncio.sleep(0.3)
        assert hands.begun == [], "the worker that has it may still live"
        await hands.until(hands.begun, run)
        hands.free.set()
        await until_empty(admin)


async def test_what_a_dead_worker_was_to_stop_is_not_begun_again(
    config: ProcrastinateConfig, worker: WorkerConfig, admin: Admin
) -> None:
    hands, run = Hands(), make_run()
    async with opened(config, worker) as dispatcher:
        await dispatcher.dispatch(run)
        await admin.execute("update procrastinate_jobs set status = 'doing'")
        await dispatcher.cancel(run.id)
    async with opened(config, worker, hands):
        await until_empty(admin)
    assert hands.begun == []


async def test_a_dead_workers_job_gives_way_to_a_newer_one_of_the_same_run(
    config: ProcrastinateConfig, worker: WorkerConfig, admin: Admin
) -> None:
    hands, run = Hands(), make_run()
    async with opened(config, worker) as dispatcher:
        await dispatcher.dispatch(run)
        await admin.execute("update procrastinate_jobs set status = 'doing'")
        await dispatcher.dispatch(run)
    assert await admin.fetchval(JOBS) == 2
    async with opened(config, worker, hands):
        await hands.until(hands.begun, run)
        while await admin.fetchval(JOBS) > 1:
            await asyncio.sleep(0.05)
        hands.free.set()
        await until_empty(admin)
    assert hands.begun == [run.id]


async def test_a_worker_that_slept_leaves_a_job_to_the_one_that_has_it_by_now(
    config: ProcrastinateConfig, worker: WorkerConfig, admin: Admin
) -> None:
    hands, run = Hands(), make_run()
    async with opened(config, worker, hands) as dispatcher:
        await dispatcher.dispatch(run)
        await hands.until(hands.begun, run)
        given_away = """
            with other as (insert into procrastinate_workers (last_heartbeat) values (now() + interval '1 h') returning id)
            update procrastinate_jobs set worker_id = other.id from other returning procrastinate_jobs.worker_id
        """
        other = await admin.fetchval(given_away)
        hands.free.set()
        await hands.until(hands.ended, run)
    assert await admin.fetchval("select worker_id from procrastinate_jobs") == other


async def test_a_run_that_is_locked_to_an_empty_version_hinders_nobody(
    config: ProcrastinateConfig, worker: WorkerConfig
) -> None:
    hands, usual = Hands(), make_run("usual")
    empty = attrs.evolve(make_run("empty"), config=TriggerConfig({"basePayload": {}, "lockToVersion": ""}))
    async with opened(config, worker) as dispatcher:
        await dispatcher.dispatch(empty)
        await dispatcher.dispatch(usual)
    async with opened(config, worker, hands):
        await hands.until(hands.begun, empty, usual)
        hands.free.set()


async def test_an_old_version_takes_over_when_the_newer_one_is_gone(
    config: ProcrastinateConfig, worker: WorkerConfig
) -> None:
    old, new, first, second = Hands(), Hands(), make_run("first"), make_run("second")
    async with opened(config, attrs.evolve(worker, version="9"), old):
        async with opened(config, attrs.evolve(worker, version="10"), new) as dispatcher:
            await asyncio.sleep(0.2)
            await dispatcher.dispatch(first)
            await new.until(new.begun, first)
        async with opened(config, worker) as dispatcher:
            await dispatcher.dispatch(second)
        await old.until(old.begun, second)
    assert (old.begun, new.begun) == ([second.id], [first.id])


@pytest.mark.parametrize(
    "versions", [("", "1"), ("1", "2"), ("9", "10"), ("1.9", "1.10"), ("v1.2", "v1.10"), ("2026.9.1", "2026.10.1")]
)
def test_versions_are_ranked_by_the_numbers_in_them(versions: tuple[str, str]) -> None:
    older, newer = (WorkerConfig(version=version or None).rank for version in versions)
    assert older < newer


async def test_a_job_says_what_an_operator_looks_for(
    config: ProcrastinateConfig, worker: WorkerConfig, admin: Admin
) -> None:
    members = {"basePayload": {}, "queue": "slow", "lockToVersion": "7", "tags": ["a", "b"]}
    run = attrs.evolve(make_run(), config=TriggerConfig(members))
    async with opened(config, worker) as dispatcher:
        await dispatcher.dispatch(run)
    told = json.loads(await admin.fetchval("select args from procrastinate_jobs"))
    assert told == {"run": run.id, "task": run.task, "queue": "slow", "version": "7", "tags": ["a", "b"]}
