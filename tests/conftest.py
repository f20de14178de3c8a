"""What every test shares: the event loop it runs on, and how patient Hypothesis is."""

import pytest
from hypothesis import settings

# A deadline per example would fail on a busy machine; the timeout of a whole test stays.
settings.register_profile("sessions", settings(), deadline=None)
settings.load_profile("sessions")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run on asyncio, as adapters and server must; tests/unit/core adds trio."""
    return "asyncio"
