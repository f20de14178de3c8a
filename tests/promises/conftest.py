"""A server process for each test, over each profile that keeps what it has, and clients for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import aiohttp
import pytest

from harness.backends import AT_LENGTH, environment_of, opened_backends
from harness.client import Client
from harness.server import KEY, ServerProcess


@pytest.fixture(params=AT_LENGTH)
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[dict[str, str]]:
    """The variables that tell a server process to use the profile under test."""
    with opened_backends(request.param, tmp_path / "data") as backends:
        yield environment_of(backends)


@pytest.fixture
def server(environment: dict[str, str], tmp_path: Path) -> Generator[ServerProcess]:
    """A running server that a test may kill and start again."""
    with ServerProcess(tmp_path / "data", environment=environment) as process:
        yield process


@pytest.fixture
async def client(server: ServerProcess) -> AsyncGenerator[Client]:
    """A client with the root key. The server keeps its address when it is started again."""
    # A connection from before a kill would fail the first request after it.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
        yield Client(http, server.address, KEY)
