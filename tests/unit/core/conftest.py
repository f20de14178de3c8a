"""The core promises to run on any anyio backend, so its tests run on both, in virtual time: nobody really sleeps."""

from typing import Any

import pytest
from trio.testing import MockClock

from sessions_core.testing import VirtualTimeLoop
from unit.core.world import World


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(("asyncio", {"loop_factory": VirtualTimeLoop}), id="asyncio"),
        pytest.param(("trio", {"clock": MockClock(autojump_threshold=0)}), id="trio"),
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run each async test of the core once per backend."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture
def world() -> World:
    """A world without processes, in the loop's own time."""
    return World()
