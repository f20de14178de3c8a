"""ClickHouse over HTTP, killed and restarted while lists are read: a clear error at once, all well afterwards."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from contract.makers import ENV_A, SECOND, START, make_session
from harness.clickhouse import ClickHouseServer
from sessions_adapters.clickhouse import (
    ClickHouseConfig,
    ClickHouseDatabase,
    ClickHouseIndexWriter,
    ClickHouseSessionIndex,
    check_schema,
    migrate,
    open_database,
)
from sessions_core.domain.ids import SessionId
from sessions_core.domain.pagination import PageRequest, SessionFilter
from sessions_core.errors import IncompatibleStoreError, IndexRefusedError, IndexUnavailableError
from sessions_core.ports.session_index import IndexRow
from sessions_core.testing import ManualClock

pytestmark = [pytest.mark.needs_clickhouse, pytest.mark.kill]

ALL = SessionFilter(environment_id=ENV_A.id)
TIMEOUT = timedelta(seconds=20)
"""Much longer than anything here takes, so that whatever takes as long has waited for nothing."""
Call = Callable[[], Awaitable[Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """One for all tests here, because it takes seconds to start: each leaves it running."""
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.fixture
def config(server: ClickHouseServer, request: pytest.FixtureRequest) -> ClickHouseConfig:
    return ClickHouseConfig(url=server.url, database=request.node.name, timeout=TIMEOUT)


@pytest.fixture
async def database(config: ClickHouseConfig) -> AsyncIterator[ClickHouseDatabase]:
    await migrate(config)
    async with open_database(config) as database:
        yield database


@pytest.fixture
def writer(database: ClickHouseDatabase) -> ClickHouseIndexWriter:
    return ClickHouseIndexWriter(database)


@pytest.fixture
def index(database: ClickHouseDatabase) -> ClickHouseSessionIndex:
    return ClickHouseSessionIndex(database, ManualClock())


def rows(*numbers: int) -> list[IndexRow]:
    return [IndexRow(make_session(f"{number:04}", at=START + number * SECOND, tags=("t",)), 1) for number in numbers]


async def ids_in(index: ClickHouseSessionIndex) -> list[SessionId]:
    return [entry.id for entry in await index.select(ENV_A, ALL, PageRequest(size=100))]


async def fails(call: Call) -> bool:
    """Tell whether *call* fails, and check that it does so with nothing of the driver's in its text."""
    failure = None
    try:
        await call()
    except IndexUnavailableError as error:
        failure = error
    assert failure is None or str(failure) == "The session index is unavailable; try again"
    assert failure is None or failure.__cause__ is not None
    return failure is not None


async def test_lists_over_http(index: ClickHouseSessionIndex, writer: ClickHouseIndexWriter) -> None:
    await writer.write(rows(1, 2, 3))
    assert await ids_in(index) == ["session_0003", "session_0002", "session_0001"]
    assert await index.count(ENV_A, attrs.evolve(ALL, types=("chat", "it's \\ {n:Int8}\n"), tags=("t", "é"))) == 3
    assert await index.list_tags(ENV_A) == ["t"]


async def test_it_is_killed_while_lists_are_read_and_written(
    server: ClickHouseServer, index: ClickHouseSessionIndex, writer: ClickHouseIndexWriter
) -> None:
    written: list[int] = []
    failures = 0
    done = anyio.Event()

    async def write() -> None:
        number = 0
        while not done.is_set():
            if await fails(partial(writer.write, rows(number))):
                await anyio.sleep(0.02)
            else:
                written.append(number)
                number += 1

    async def read() -> None:
        nonlocal failures
        while not done.is_set():
            start = time.monotonic()
            failures += await fails(partial(ids_in, index))
            assert time.monotonic() - start < TIMEOUT.total_seconds()
            await anyio.sleep(0.005)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        for _ in range(3):
            tasks.start_soon(read)
        await until(lambda: len(written) >= 5)
        server.kill()
        await until(lambda: failures >= 3)
        server.start()
        before = len(written)
        await until(lambda: len(written) >= before + 5)
        done.set()
    found = await index.count(ENV_A, ALL)
    assert found >= len(written), "what was acknowledged is there"
    assert not await fails(partial(ids_in, index))


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.sleep(0.01)


async def test_a_restart_between_two_lists_goes_unnoticed(
    server: ClickHouseServer, index: ClickHouseSessionIndex, writer: ClickHouseIndexWriter
) -> None:
    await writer.write(rows(1))
    server.kill()
    server.start()
    assert await ids_in(index) == ["session_0001"]


async def test_while_it_is_down_everything_about_it_is_unavailable(
    server: ClickHouseServer, database: ClickHouseDatabase, config: ClickHouseConfig, tmp_path: Path
) -> None:
    server.kill()
    async with open_database(config) as early:
        index, writer = ClickHouseSessionIndex(early, ManualClock()), ClickHouseIndexWriter(database)
        calls: list[Call] = [
            partial(ids_in, index),
            partial(index.count, ENV_A, ALL),
            partial(index.list_tags, ENV_A),
            partial(writer.write, rows(1)),
            partial(check_schema, early),
            partial(migrate, config),
        ]
        assert all([await fails(call) for call in calls])
        server.start()
        assert await ids_in(index) == [], "it may come after us"


async def test_one_that_hangs_costs_no_more_than_the_timeout(
    server: ClickHouseServer, config: ClickHouseConfig, database: ClickHouseDatabase
) -> None:
    async with open_database(attrs.evolve(config, timeout=timedelta(milliseconds=500))) as hasty:
        index = ClickHouseSessionIndex(hasty, ManualClock())
        await until_listed(index)
        with server.standing_still(), anyio.fail_after(TIMEOUT.total_seconds()):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(fails, partial(ids_in, index))
        await until_listed(index)


async def until_listed(index: ClickHouseSessionIndex) -> None:
    """Try until it works: on a busy machine a hasty client may have to."""
    with anyio.fail_after(TIMEOUT.total_seconds()):
        while await fails(partial(ids_in, index)):
            pass


async def test_a_missing_database_is_told_with_its_remedy(config: ClickHouseConfig, server: ClickHouseServer) -> None:
    async with open_database(attrs.evolve(config, database="nowhere")) as database:
        with pytest.raises(IncompatibleStoreError, match="run `sessions migrate`"):
            await check_schema(database)


async def test_those_who_run_it_are_told_what_clickhouse_calls_the_failure(database: ClickHouseDatabase) -> None:
    with pytest.raises(IndexUnavailableError) as caught:
        await database.query("SELECT * FROM nobody_made_this", {})
    assert caught.value.__notes__ == ["ClickHouse: UNKNOWN_TABLE"]


async def test_https_is_never_plain_http(config: ClickHouseConfig) -> None:
    async with open_database(attrs.evolve(config, url=config.url.replace("http", "https"))) as database:
        with pytest.raises(IndexUnavailableError) as caught:
            await database.query("SELECT 1", {})
    assert "SSL" in str(caught.value.__cause__)


async def test_rows_that_can_never_be_written_are_told_apart_from_an_outage(
    database: ClickHouseDatabase, index: ClickHouseSessionIndex
) -> None:
    with pytest.raises(IndexRefusedError):
        await database.run(
            lambda client: client.raw_insert("sessions_v1", insert_block=b'{"created_at": "no"}', fmt="JSONEachRow")
        )
    assert await ids_in(index) == []
