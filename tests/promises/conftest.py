"""A server process for each test, and clients for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import aiohttp
import pytest

from harness.client import Client
from harness.server import KEY, ServerProcess


@pytest.fixture
def server(tmp_path: Path) -> Generator[ServerProcess]:
    """A running server that a test may kill and start again."""
    with ServerProcess(tmp_path / "data") as process:
        yield process


@pytest.fixture
async def client(server: ServerProcess) -> AsyncGenerator[Client]:
    """A client with the root key. The server keeps its address when it is started again."""
    # A connection from before a kill would fail the first request after it.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
        yield Client(http, server.address, KEY)
