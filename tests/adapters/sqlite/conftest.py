"""A database in a temporary folder, with a clock that stands still."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sessions_adapters.sqlite import SqliteChannelLog, SqliteConfig, SqliteDatabase, open_database
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.ids import AddressingKey, EnvironmentId
from sessions_core.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def config(tmp_path: Path) -> SqliteConfig:
    return SqliteConfig(path=tmp_path / "sessions.db")


@pytest.fixture
async def db(config: SqliteConfig, clock: ManualClock) -> AsyncIterator[SqliteDatabase]:
    async with open_database(config, clock=clock) as db:
        yield db


@pytest.fixture
def log(db: SqliteDatabase) -> SqliteChannelLog:
    return SqliteChannelLog(db)


@pytest.fixture
def channel() -> Channel:
    return Channel(EnvironmentId("env_1"), AddressingKey("chat"), Io.IN)
