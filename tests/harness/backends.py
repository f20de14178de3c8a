"""The profiles, each with systems that are empty."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest
from anyio.from_thread import start_blocking_portal

from harness.databases import find_databases
from harness.redis import REDIS
from harness.s2 import S2, new_basin
from harness.services import REQUIRED
from sessions_adapters.profiles import EMBEDDED, MEMORY, POSTGRES, SCALE, STORE, Backends
from sessions_server.config import variable_of

_POSTGRES: Final = pytest.mark.needs_postgres
_SCALE: Final = (_POSTGRES, pytest.mark.needs_redis, pytest.mark.needs_s2)
_AT_LENGTH: Final = pytest.mark.skipif(os.environ.get(REQUIRED) != "1", reason=f"takes minutes; {REQUIRED}=1 runs it")

SHARED: Final = (pytest.param(POSTGRES, marks=_POSTGRES), pytest.param(SCALE, marks=_SCALE))
"""The profiles whose data several processes may share, for ``pytest.mark.parametrize``."""
ALL: Final = (MEMORY, EMBEDDED, *SHARED)
AT_LENGTH: Final = (EMBEDDED, SHARED[0], pytest.param(SCALE, marks=(*_SCALE, _AT_LENGTH)))
"""Those that keep what they have, for tests that take long; ``scale`` only where no test may be left out."""


@asynccontextmanager
async def open_backends(profile: str, data: Path) -> AsyncGenerator[Backends]:
    """Give *profile* with a database and a basin that nobody else uses. What has them open has to close them first."""
    if profile not in (POSTGRES, SCALE):
        yield Backends(profile=profile, data=data)
        return
    async with find_databases().empty() as url:
        backends = Backends(profile=profile, data=data, database_url=url)
        yield backends if profile == POSTGRES else with_redis_and_s2(backends)


@contextmanager
def opened_backends(profile: str, data: Path) -> Generator[Backends]:
    """Do the same for what has no event loop, such as a server process and its fixture."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(open_backends(profile, data)) as backends:
        yield backends


def with_redis_and_s2(backends: Backends) -> Backends:
    """Return *backends* with the Redis that tests share, and a new basin. Lists are read from the store, without a lag."""
    s2_url = f"s2://{new_basin()}?endpoint={S2.get()}"
    return attrs.evolve(backends, redis_url=REDIS.get(), s2_url=s2_url, index=STORE)


def environment_of(backends: Backends) -> dict[str, str]:
    """Return the variables that tell a server process to use *backends*."""
    return {variable_of(name): str(value) for name, value in attrs.asdict(backends).items() if value is not None}
