"""A database whose changes are streamed, and what looks at it from outside."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import pytest

from harness.feeding import remove_feed
from sessions_adapters.postgres import PostgresConfig
from sessions_adapters.postgres.replication import PostgresChangeFeed, ReplicationConfig

NUMBERS: Final = itertools.count()


@pytest.fixture
async def options(url: str) -> AsyncIterator[ReplicationConfig]:
    """Names that nobody else on the server uses. What is made under them goes with the test."""
    name = f"test_{os.getpid()}_{next(NUMBERS)}"
    yield ReplicationConfig(slot=name, publication=name, status_interval=timedelta(milliseconds=20))
    await remove_feed(url, name)


@pytest.fixture
def feed(config: PostgresConfig, options: ReplicationConfig) -> PostgresChangeFeed:
    return PostgresChangeFeed(config, options)
