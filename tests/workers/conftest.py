"""A server that carries nothing out, and workers, on one database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import attrs
import pytest

from harness.backends import environment_of, opened_backends
from harness.client import Client
from harness.server import KEY, ServerProcess
from harness.worker import WorkerProcess
from sessions_adapters.profiles import POSTGRES, PROCRASTINATE

STALL_SECONDS = 3
AGENTS = "harness.workers_agents:agents"
TESTS = str(Path(__file__).parents[1])

Hire = Callable[..., WorkerProcess]


@pytest.fixture(scope="module")
def profile() -> str:
    return POSTGRES


@pytest.fixture(scope="module")
def environment(profile: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables for all processes of this module."""
    data = tmp_path_factory.mktemp("data")
    with opened_backends(profile, data) as backends:
        chosen = attrs.evolve(backends, dispatcher=PROCRASTINATE)
        yield environment_of(chosen) | {
            "SESSIONS_STALL": str(STALL_SECONDS),
            "SESSIONS_LOG_LEVEL": "INFO",
            "PYTHONPATH": TESTS,
        }


@pytest.fixture(scope="module")
def server(environment: dict[str, str]) -> Iterator[ServerProcess]:
    """A server that takes no runs itself."""
    with ServerProcess(Path(environment["SESSIONS_DATA"]), agents="none", environment=environment) as server:
        yield server


@pytest.fixture
def hire(server: ServerProcess, environment: dict[str, str]) -> Iterator[Hire]:
    """Starts workers, which are ended with the test."""
    with ExitStack() as stack:

        def start(*options: str, agents: str = AGENTS, **variables: str) -> WorkerProcess:
            worker = WorkerProcess(
                server.data, agents=agents, environment=environment | variables, options=tuple(options)
            )
            return stack.enter_context(worker)

        yield start


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as http:
        yield Client(http, server.address, KEY)
