"""Gives each suite its port, once per adapter and event loop that has it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Final, TypeVar

import pytest

from contract.adapters import CAPABILITIES, PORTS, Adapters, Case, LimiterTime, ServedDispatcher, cases_with
from sessions_core.ports.backlog import Backlog
from sessions_core.ports.change_feed import ChangeFeed
from sessions_core.ports.channel_log import ChannelLog
from sessions_core.ports.dead_letters import DeadLetters
from sessions_core.ports.environment_store import EnvironmentStore, TokenLedger
from sessions_core.ports.leader_lock import LeaderLock
from sessions_core.ports.rate_limiter import RateLimiter
from sessions_core.ports.run_store import RunStore
from sessions_core.ports.session_index import IndexWriter, SessionIndex
from sessions_core.ports.session_store import SessionStore
from sessions_core.ports.waitpoint_store import WaitpointStore, WaitRegistry
from sessions_core.testing import ManualClock

T = TypeVar("T")
FOLDER: Final = Path(__file__).parent


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test over every case that offers all the ports and capabilities it takes."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases_with((PORTS | CAPABILITIES) & set(metafunc.fixturenames)), ids=str)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give models the minutes that dozens of random stories may take on a busy machine."""
    for item in items:
        if item.path.parent == FOLDER and item.path.stem.endswith("_model"):
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture
def anyio_backend(case: Case) -> str:
    return case.backend


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def adapters(case: Case, clock: ManualClock) -> AsyncGenerator[Adapters]:
    """The ports of one technology over a fresh storage."""
    async with case.technology.open(clock) as opened:
        yield opened


@pytest.fixture
def any_record() -> None:
    """Taken by tests that need this capability."""


@pytest.fixture
def guard_seqs(case: Case) -> int:
    """How many seqs a change of a guard takes."""
    return case.technology.guard_seqs


def _offered(port: T | None) -> T:
    assert port is not None, "the technology's list of ports is wrong"
    return port


@pytest.fixture
def session_store(adapters: Adapters) -> SessionStore:
    return _offered(adapters.session_store)


@pytest.fixture
def run_store(adapters: Adapters) -> RunStore:
    return _offered(adapters.run_store)


@pytest.fixture
def backlog(adapters: Adapters) -> Backlog:
    return _offered(adapters.backlog)


@pytest.fixture
def session_index(adapters: Adapters) -> SessionIndex:
    return _offered(adapters.session_index)


@pytest.fixture
def index_writer(adapters: Adapters) -> IndexWriter:
    return _offered(adapters.index_writer)


@pytest.fixture
def indexed_store(adapters: Adapters) -> SessionStore:
    """The store whose sessions the index shows."""
    return _offered(adapters.indexed_store or adapters.session_store)


@pytest.fixture
def channel_log(adapters: Adapters) -> ChannelLog:
    return _offered(adapters.channel_log)


@pytest.fixture
def waitpoint_store(adapters: Adapters) -> WaitpointStore:
    return _offered(adapters.waitpoint_store)


@pytest.fixture
def wait_registry(adapters: Adapters) -> WaitRegistry:
    return _offered(adapters.wait_registry)


@pytest.fixture
def environment_store(adapters: Adapters) -> EnvironmentStore:
    return _offered(adapters.environment_store)


@pytest.fixture
def rate_limiter(adapters: Adapters) -> RateLimiter:
    return _offered(adapters.rate_limiter)


@pytest.fixture
def limiter_time(adapters: Adapters) -> LimiterTime:
    """What the limiter goes by."""
    return _offered(adapters.limiter_time)


@pytest.fixture
def token_ledger(adapters: Adapters) -> TokenLedger:
    return _offered(adapters.token_ledger)


@pytest.fixture
def leader_lock(adapters: Adapters) -> LeaderLock:
    return _offered(adapters.leader_lock)


@pytest.fixture
def run_dispatcher(adapters: Adapters) -> ServedDispatcher:
    return _offered(adapters.run_dispatcher)


@pytest.fixture
def change_feed(adapters: Adapters) -> ChangeFeed:
    return _offered(adapters.change_feed)


@pytest.fixture
def changing_store(adapters: Adapters) -> SessionStore:
    """The store whose changes the feed streams."""
    return _offered(adapters.changing_store)


@pytest.fixture
def dead_letters(adapters: Adapters) -> DeadLetters:
    return _offered(adapters.dead_letters)


@pytest.fixture
def stored_runs(adapters: Adapters) -> Callable[[], set[str]]:
    return _offered(adapters.stored_runs)


@pytest.fixture
def is_readable_at_rest(adapters: Adapters) -> Callable[[str], bool]:
    return _offered(adapters.is_readable_at_rest)
