"""Redis servers for one test each, to be killed and restarted, and a registry with a short patience."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis, RedisCluster

from harness.redis import RedisServer
from sessions_adapters.redis import RedisConfig, RedisWaitRegistry

TIMEOUT = timedelta(milliseconds=300)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    # Not tmp_path: the path of a Unix socket has to be short.
    with tempfile.TemporaryDirectory(prefix="sessions-redis-") as folder, RedisServer(Path(folder)) as server:
        yield server


@pytest.fixture
async def admin(server: RedisServer) -> AsyncIterator[Redis]:
    """A client of its own, to do to the server what operators and accidents do."""
    client = Redis(unix_socket_path=str(server.socket), protocol=2)
    yield client
    await client.aclose()


@pytest.fixture
async def registry(server: RedisServer) -> AsyncIterator[RedisWaitRegistry]:
    async with RedisWaitRegistry.connect(RedisConfig(url=server.url, timeout=TIMEOUT)) as registry:
        yield registry


@pytest.fixture
def cluster_port() -> Iterator[int]:
    """A cluster of one node that serves all slots. It needs TCP, which its clients use to find nodes."""
    with tempfile.TemporaryDirectory(prefix="sessions-redis-") as folder:
        server = RedisServer(Path(folder), cluster=True)
        with server:
            yield server.port


@pytest.fixture
async def cluster(cluster_port: int) -> AsyncIterator[RedisCluster]:
    node: Any
    async with Redis(port=cluster_port) as node:
        await node.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        with anyio.fail_after(20):
            while b"cluster_state:ok" not in await node.execute_command("CLUSTER", "INFO"):
                await anyio.sleep(0.05)
    client = RedisCluster(host="127.0.0.1", port=cluster_port)
    yield client
    await client.aclose()
