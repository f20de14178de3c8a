"""What every test shares: the event loop it runs on, how patient Hypothesis is, and the systems it needs."""

from typing import Any, Final

import pytest
from hypothesis import settings

from harness import services
from harness.browser import CHROMIUM
from harness.clickhouse import CLICKHOUSE
from harness.node import NODE
from harness.postgres import POSTGRES
from harness.redis import REDIS
from harness.s2 import S2

# A deadline per example would fail on a busy machine; the timeout of a whole test stays.
settings.register_profile("sessions", settings(), deadline=None)
settings.load_profile("sessions")

NEEDS: Final[dict[str, services.Service[Any]]] = {
    "needs_browser": CHROMIUM,
    "needs_clickhouse": CLICKHOUSE,
    "needs_node": NODE,
    "needs_postgres": POSTGRES,
    "needs_redis": REDIS,
    "needs_s2": S2,
}


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run on asyncio, as adapters and server must; tests/unit/core adds trio."""
    return "asyncio"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let it be asked what ran on what."""
    parser.addoption(
        "--matrix", action="store_true", help="print passed tests by port and adapter, by suite and profile"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print it."""
    if config.getoption("--matrix"):
        from harness.matrix import describe  # it imports every adapter under test

        reports = (each for group in terminalreporter.stats.values() for each in group)
        terminalreporter.section("passed tests")
        for line in describe(each for each in reports if isinstance(each, pytest.TestReport)):
            terminalreporter.line(line)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start what the test is marked to need."""
    for marker in item.iter_markers():
        if marker.name in NEEDS:
            services.ensure(NEEDS[marker.name])


def pytest_unconfigure() -> None:
    """End what was started."""
    services.RUN.close()
