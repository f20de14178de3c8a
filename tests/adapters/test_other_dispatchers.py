"""Runs that wait outlive whoever was to carry them out: another dispatcher gets them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest
from aiohttp import ClientSession

from contract.makers import ENV_A
from harness.databases import JOBS_SCHEMA, find_databases
from harness.receiver import RECEIVER, SECRET
from sessions_adapters.fernet import FernetCipher
from sessions_adapters.profiles import Backends, migrate, open_sessions
from sessions_core.agents import Agents
from sessions_core.domain.ids import ExternalId, RunId
from sessions_core.facade import Sessions, Settings
from sessions_core.services.session_service import NewSession
from sessions_core.services.sweep import SweepConfig

KEY = FernetCipher.generate_key().decode()
SOON = 20.0
SETTINGS = Settings(owns_data=True, sweep=SweepConfig(interval=timedelta(milliseconds=50), dispatch_grace=timedelta()))


@asynccontextmanager
async def opened(backends: Backends, agents: Agents | None = None) -> AsyncGenerator[Sessions]:
    async with open_sessions(backends, agents=agents, settings=SETTINGS) as sessions:
        yield sessions


async def leave_waiting(backends: Backends) -> RunId:
    """Create a session whose run nobody begins; return that run."""
    async with opened(backends) as sessions:
        created = await sessions.sessions.create(ENV_A, NewSession(task="noted", external_id=ExternalId("chat")))
        await anyio.sleep(0.2)
        return created.run_id


async def until_begun(backends: Backends, run_id: RunId) -> None:
    """Let a process with agents for it carry the run out."""
    agents, begun = Agents(), anyio.Event()

    @agents.task("noted")
    async def noted(run: Any) -> None:
        assert run.id == run_id
        begun.set()

    async with opened(backends, agents):
        with anyio.fail_after(SOON):
            await begun.wait()


@asynccontextmanager
async def receiver() -> AsyncGenerator[ClientSession]:
    """An engine that has forgotten everything."""
    async with ClientSession(RECEIVER.get()) as http, http.post("/forget", json=None) as response:
        assert response.status == 200
        yield http


async def until_posted(backends: Backends, http: ClientSession, run_id: RunId) -> None:
    async with opened(backends):
        with anyio.fail_after(SOON):
            while run_id not in await posted(http):
                await anyio.sleep(0.05)


async def posted(http: ClientSession) -> list[str]:
    async with http.get("/requests") as response:
        return [request["body"]["data"]["runId"] for request in await response.json()]


def with_engine(**chosen: Any) -> Backends:
    return Backends(
        dispatcher="webhook", webhook_url=f"{RECEIVER.get()}/runs", webhook_secret=SECRET, encryption_key=KEY, **chosen
    )


async def test_an_engine_gets_what_nobody_in_the_servers_own_process_could_carry_out(tmp_path: Path) -> None:
    run_id = await leave_waiting(Backends(profile="embedded", data=tmp_path))
    async with receiver() as http:
        await until_posted(with_engine(profile="embedded", data=tmp_path), http, run_id)


@pytest.mark.needs_postgres
async def test_a_queue_that_was_lost_is_filled_again_by_a_migration() -> None:
    async with find_databases().empty() as url:
        backends = Backends(profile="postgres", database_url=url, encryption_key=KEY)
        run_id = await leave_waiting(backends)
        connection = await asyncpg.connect(url)
        await connection.execute(f"drop schema {JOBS_SCHEMA} cascade")
        await connection.close()
        await migrate(backends)
        await until_begun(backends, run_id)


@pytest.mark.needs_postgres
async def test_after_a_migration_another_dispatcher_has_what_waits() -> None:
    async with find_databases().empty() as url, receiver() as http:
        engine = with_engine(profile="postgres", database_url=url)
        queue = Backends(profile="postgres", database_url=url, encryption_key=KEY)
        run_id = await leave_waiting(queue)
        await migrate(engine)
        await until_posted(engine, http, run_id)
        await migrate(queue)
        await until_begun(queue, run_id)
