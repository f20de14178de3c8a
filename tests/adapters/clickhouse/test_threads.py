"""Statements run on a fixed number of threads, whatever becomes of those who asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from harness.clickhouse import CLICKHOUSE
from sessions_adapters.clickhouse import ClickHouseConfig, ClickHouseDatabase, open_database
from sessions_core.errors import IndexUnavailableError

pytestmark = pytest.mark.needs_clickhouse

SLOW = "SELECT sleep(0.3)"
LONG = "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))"


def threads() -> int:
    return sum(thread.name.startswith("sessions-clickhouse") for thread in threading.enumerate())


@pytest.fixture
def url() -> str:
    return CLICKHOUSE.get()


def configure(url: str, **members: Any) -> ClickHouseConfig:
    return ClickHouseConfig(url=url, database="default", **members)


async def test_statements_run_beside_each_other(url: str) -> None:
    async with open_database(configure(url, workers=2)) as database:
        await ask_all(database, "SELECT 1", 2)  # so that both have a connection
        start = time.monotonic()
        await ask_all(database, "SELECT sleep(3)", 2)
        assert time.monotonic() - start < 6, "one after the other they cannot take less"


async def ask_all(database: ClickHouseDatabase, statement: str, times: int) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(times):
            tasks.start_soon(database.query, statement, {})


async def test_the_event_loop_is_free_meanwhile(url: str) -> None:
    turns = 0
    async with open_database(configure(url)) as database, anyio.create_task_group() as tasks:
        tasks.start_soon(database.query, SLOW, {})
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            await anyio.lowlevel.checkpoint()
            turns += 1
    assert turns > 100


async def test_cancelled_calls_leave_no_threads_and_spoil_no_answers(url: str) -> None:
    async with open_database(configure(url, workers=2)) as database:
        for _ in range(20):
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(database.query, "SELECT sleep(0.01)", {})
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        assert threads() <= 2
        answers = [await database.query("SELECT {n:Int64}", {"n": number}) for number in range(20)]
        assert answers == [[(number,)] for number in range(20)]
    assert threads() == 0


async def test_a_statement_nobody_waits_for_any_more_is_never_sent(url: str) -> None:
    sent: list[int] = []

    def note(number: int, _: object) -> None:
        sent.append(number)

    async with open_database(configure(url, workers=1)) as database:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(database.query, SLOW, {})
            await until(lambda: threads() == 1)
            with anyio.move_on_after(0.05):
                await database.run(partial(note, 1))
        await database.run(partial(note, 2))
    assert sent == [2]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.005)


async def test_a_call_takes_no_longer_than_the_timeout_and_the_engine_stops_working(url: str) -> None:
    async with open_database(configure(url, timeout=timedelta(seconds=1), workers=1)) as database:
        with anyio.fail_after(30), pytest.raises(IndexUnavailableError) as caught:
            await database.query(LONG, {})
        assert caught.value.__cause__ is not None
        with anyio.fail_after(10):
            while True:
                try:
                    assert await database.query("SELECT 1", {}) == [(1,)]
                except IndexUnavailableError:
                    continue  # the thread is still busy
                break


async def test_a_wrong_statement_is_an_error_without_the_drivers_text(url: str) -> None:
    async with open_database(configure(url)) as database:
        with pytest.raises(IndexUnavailableError) as caught:
            await database.query("SELECT secret FROM nowhere", {})
    assert str(caught.value) == "The session index is unavailable; try again"
    assert "nowhere" in str(caught.value.__cause__)


async def test_after_the_end_it_is_unavailable(url: str) -> None:
    async with open_database(configure(url)) as database:
        pass
    with pytest.raises(IndexUnavailableError):
        await database.query("SELECT 1", {})
    assert threads() == 0


async def test_calls_under_way_at_the_end_are_ended(url: str) -> None:
    failures: list[Exception] = []

    async def ask(database: ClickHouseDatabase) -> None:
        try:
            await database.query(SLOW, {})
        except IndexUnavailableError as error:
            failures.append(error)

    async with anyio.create_task_group() as tasks, open_database(configure(url, workers=1)) as database:
        for _ in range(3):
            tasks.start_soon(ask, database)
        await until(lambda: threads() == 1)
    assert len(failures) == 2, "the one that had begun was answered"
    assert threads() == 0
