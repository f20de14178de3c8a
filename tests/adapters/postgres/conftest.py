"""An empty database of the shared server, or a server of one's own."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from harness.databases import find_databases
from harness.postgres import PostgresProcess
from sessions_adapters.postgres import PostgresChannelLog, PostgresConfig, PostgresDatabase, open_database
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.ids import AddressingKey, EnvironmentId


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """The URL of an empty database. The test fails if it leaves a connection to it behind."""
    async with find_databases().empty() as url:
        yield url


@pytest.fixture
async def bare_url() -> AsyncIterator[str]:
    """The URL of a database without our schema."""
    async with find_databases().bare() as url:
        yield url


@pytest.fixture
def config(url: str) -> PostgresConfig:
    return PostgresConfig(url=url, leader_check=timedelta(milliseconds=50))


@pytest.fixture
async def db(config: PostgresConfig) -> AsyncIterator[PostgresDatabase]:
    async with open_database(config) as db:
        yield db


@pytest.fixture
async def other_db(config: PostgresConfig) -> AsyncIterator[PostgresDatabase]:
    """The same database, as another process has it open."""
    async with open_database(config) as db:
        yield db


@pytest.fixture
def log(db: PostgresDatabase) -> PostgresChannelLog:
    return PostgresChannelLog(db)


@pytest.fixture
def other_log(other_db: PostgresDatabase) -> PostgresChannelLog:
    return PostgresChannelLog(other_db)


@pytest.fixture
def channel() -> Channel:
    return Channel(EnvironmentId("env_1"), AddressingKey("chat"), Io.IN)


@pytest.fixture
async def admin(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection that looks at the others, and ends them."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "sessions", "application_name": "admin"})
    yield connection
    await connection.close()


@pytest.fixture
def server() -> Iterator[PostgresProcess]:
    """A server of one's own, which may be killed."""
    with tempfile.TemporaryDirectory(prefix="sessions-pg-") as folder, PostgresProcess(Path(folder)) as server:
        yield server
