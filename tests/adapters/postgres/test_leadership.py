"""Leaders whose connection breaks, stands still, or belongs to another process."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import anyio
import asyncpg
import pytest

from harness.postgres import PostgresProcess
from sessions_adapters.postgres import (
    PostgresConfig,
    PostgresDatabase,
    PostgresLeaderLock,
    leader_lock,
    migrate,
    open_database,
)
from sessions_adapters.postgres.leader_lock import ANSWER_SECONDS

pytestmark = pytest.mark.needs_postgres

SOON = 15.0
CHECK = timedelta(milliseconds=50)
END_LEADER = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted"
FIND_LEADER = "select pid from pg_locks where locktype = 'advisory' and granted"


async def test_of_two_processes_one_leads_and_the_other_one_takes_over(
    db: PostgresDatabase, other_db: PostgresDatabase
) -> None:
    leading: list[str] = []

    async def lead(name: str, where: PostgresDatabase, leave: anyio.Event) -> None:
        async with PostgresLeaderLock(where).hold("sweep") as scope:
            with scope:
                leading.append(name)
                await leave.wait()
            leading.remove(name)

    first_may_go, second_may_go = anyio.Event(), anyio.Event()
    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lead, "first", db, first_may_go)
            while leading != ["first"]:
                await anyio.sleep(0.005)
            tasks.start_soon(lead, "second", other_db, second_may_go)
            await anyio.sleep(5 * CHECK.total_seconds())
            assert leading == ["first"]
            first_may_go.set()
            while leading != ["second"]:
                await anyio.sleep(0.005)
            second_may_go.set()


async def test_a_leader_whose_connection_breaks_is_cancelled_at_once(
    url: str, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    config = PostgresConfig(url=url, leader_check=timedelta(hours=1))
    with anyio.fail_after(SOON):
        async with open_database(config) as db, PostgresLeaderLock(db).hold("sweep") as scope:
            with scope:
                assert await admin.fetchval(END_LEADER)
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        async with open_database(config) as db, PostgresLeaderLock(db).hold("sweep") as again:
            assert not again.cancel_called


async def test_a_leader_whose_connection_stands_still_is_cancelled_within_the_stated_time(
    server: PostgresProcess,
) -> None:
    config = PostgresConfig(url=server.url, leader_check=CHECK)
    await migrate(config)
    async with open_database(config) as db, PostgresLeaderLock(db).hold("sweep") as scope:
        connection = await asyncpg.connect(server.url)
        backend = await connection.fetchval(FIND_LEADER)
        await connection.close()
        os.kill(backend, signal.SIGSTOP)
        try:
            with anyio.fail_after(CHECK.total_seconds() + ANSWER_SECONDS + 3), scope:
                await anyio.sleep_forever()
        finally:
            os.kill(backend, signal.SIGCONT)
        assert scope.cancelled_caught


class StandingStill(PostgresLeaderLock):
    """A lock in a process that does nothing any more: it never asks whether it still leads."""

    async def _pause(self) -> None:
        await anyio.sleep_forever()


async def test_a_leader_whose_process_stands_still_is_followed_by_another_one(
    db: PostgresDatabase, other_db: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_lock, "SILENCE", 10 * CHECK)
    async with StandingStill(db).hold("sweep") as scope:
        with anyio.fail_after(SOON):
            async with PostgresLeaderLock(other_db).hold("sweep"):
                while not scope.cancel_called:  # it learns so when it looks at its connection again
                    await anyio.sleep(0.005)


async def test_who_wants_to_lead_waits_until_the_server_is_back(server: PostgresProcess) -> None:
    config = PostgresConfig(url=server.url, leader_check=CHECK)
    await migrate(config)
    async with open_database(config) as db:
        server.kill()
        is_leading = anyio.Event()

        async def lead() -> None:
            async with PostgresLeaderLock(db).hold("sweep"):
                is_leading.set()

        with anyio.fail_after(SOON):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lead)
                await anyio.sleep(3 * CHECK.total_seconds())
                assert not is_leading.is_set()
                server.start()
                await is_leading.wait()


async def test_leaders_and_candidates_end_with_the_database(config: PostgresConfig) -> None:
    cancelled: list[str] = []

    async def lead(db: PostgresDatabase) -> None:
        async with PostgresLeaderLock(db).hold("sweep") as scope:
            with scope:
                await anyio.sleep_forever()
            cancelled.append("leader")

    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks:
            async with open_database(config) as db:
                tasks.start_soon(lead, db)
                tasks.start_soon(lead, db)
                while not db.leaders._scopes:
                    await anyio.sleep(0.005)
            while not cancelled:
                await anyio.sleep(0.005)
            tasks.cancel_scope.cancel()
    assert cancelled == ["leader"]
