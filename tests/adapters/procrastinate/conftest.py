"""An empty queue on the shared server, or a server of one's own, and what looks at the jobs."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from harness.databases import JOBS_SCHEMA, find_databases
from harness.postgres import PostgresProcess
from sessions_adapters.procrastinate import ProcrastinateConfig, WorkerConfig


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """The URL of an empty database. The test fails if it leaves a connection to it behind."""
    async with find_databases().empty() as url:
        yield url


@pytest.fixture
async def bare_url() -> AsyncIterator[str]:
    """The URL of a database without any schema."""
    async with find_databases().bare() as url:
        yield url


@pytest.fixture
def config(url: str) -> ProcrastinateConfig:
    return ProcrastinateConfig(url=url)


@pytest.fixture
def worker() -> WorkerConfig:
    return WorkerConfig(stall=timedelta(seconds=1), poll=timedelta(milliseconds=100))


@pytest.fixture
async def admin(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection that looks at the jobs, and ends other connections."""
    connection = await asyncpg.connect(url, server_settings={"search_path": JOBS_SCHEMA, "application_name": "admin"})
    yield connection
    await connection.close()


@pytest.fixture
def server() -> Iterator[PostgresProcess]:
    """A server of one's own, which may be killed."""
    with tempfile.TemporaryDirectory(prefix="sessions-pg-") as folder, PostgresProcess(Path(folder)) as server:
        yield server
