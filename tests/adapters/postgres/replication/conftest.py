"""A database whose changes are streamed, and what looks at it from outside."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import anyio
import pytest

from sessions_adapters.postgres import PostgresConfig
from sessions_adapters.postgres.replication import PostgresChangeFeed, ReplicationConfig

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

NUMBERS: Final = itertools.count()
LEAVING_SECONDS: Final = 5
IN_USE: Final = "select active from pg_replication_slots where slot_name = $1"


@pytest.fixture
async def options(admin: Connection) -> AsyncIterator[ReplicationConfig]:
    """Names that nobody else on the server uses. What is made under them goes with the test."""
    name = f"test_{os.getpid()}_{next(NUMBERS)}"
    yield ReplicationConfig(slot=name, publication=name, status_interval=timedelta(milliseconds=20))
    with anyio.fail_after(LEAVING_SECONDS):
        while await admin.fetchval(IN_USE, name):
            await anyio.sleep(0.005)
    if await admin.fetchval(IN_USE, name) is not None:
        await admin.execute("select pg_drop_replication_slot($1)", name)
    await admin.execute(f"drop publication if exists {name}; alter table session replica identity default")


@pytest.fixture
def feed(config: PostgresConfig, options: ReplicationConfig) -> PostgresChangeFeed:
    return PostgresChangeFeed(config, options)
