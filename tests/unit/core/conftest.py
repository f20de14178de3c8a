"""The core promises to run on any anyio backend, so its tests run on both."""

import pytest


@pytest.fixture(scope="session", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each async test of the core once per backend."""
    backend: str = request.param
    return backend
