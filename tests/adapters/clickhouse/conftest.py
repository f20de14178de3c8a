"""Databases in the engine that the run shares, and values to put into them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from harness.clickhouse import CLICKHOUSE
from sessions_adapters.clickhouse import (
    ClickHouseConfig,
    ClickHouseDatabase,
    ClickHouseIndexWriter,
    ClickHouseSessionIndex,
    migrate,
    open_database,
)
from sessions_core.testing import ManualClock


@pytest.fixture
def config() -> ClickHouseConfig:
    """A database that does not exist yet."""
    name = f"test_{uuid.uuid4().hex}"
    return ClickHouseConfig(url=CLICKHOUSE.get(), database=name, timeout=timedelta(seconds=30))


@pytest.fixture
async def database(config: ClickHouseConfig) -> AsyncIterator[ClickHouseDatabase]:
    await migrate(config)
    async with open_database(config) as database:
        yield database
        await database.run(lambda client: client.command(f"DROP DATABASE {config.database}"))


@pytest.fixture
def writer(database: ClickHouseDatabase) -> ClickHouseIndexWriter:
    return ClickHouseIndexWriter(database)


@pytest.fixture
def index(database: ClickHouseDatabase) -> ClickHouseSessionIndex:
    return ClickHouseSessionIndex(database, ManualClock())
