"""The profiles, each with systems that are empty."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest

from harness.databases import find_databases
from harness.redis import REDIS
from harness.s2 import S2, new_basin
from sessions_adapters.profiles import EMBEDDED, MEMORY, POSTGRES, SCALE, Backends
from sessions_server.config import variable_of

SHARED: Final = (
    pytest.param(POSTGRES, marks=pytest.mark.needs_postgres),
    pytest.param(SCALE, marks=[pytest.mark.needs_postgres, pytest.mark.needs_redis, pytest.mark.needs_s2]),
)
"""The profiles whose data several processes may share, for ``pytest.mark.parametrize``."""
DURABLE: Final = (EMBEDDED, *SHARED)
ALL: Final = (MEMORY, *DURABLE)


@asynccontextmanager
async def open_backends(profile: str, data: Path) -> AsyncGenerator[Backends]:
    """Give *profile* with a database and a basin that nobody else uses. What has them open has to close them first."""
    if profile not in (POSTGRES, SCALE):
        yield Backends(profile=profile, data=data)
        return
    async with find_databases().empty() as url:
        backends = Backends(profile=profile, data=data, database_url=url)
        yield backends if profile == POSTGRES else with_redis_and_s2(backends)


def with_redis_and_s2(backends: Backends) -> Backends:
    """Return *backends* with the Redis that tests share, and a new basin."""
    return attrs.evolve(backends, redis_url=REDIS.get(), s2_url=f"s2://{new_basin()}?endpoint={S2.get()}")


def environment_of(backends: Backends) -> dict[str, str]:
    """Return the variables that tell a server process to use *backends*."""
    return {variable_of(name): str(value) for name, value in attrs.asdict(backends).items() if value is not None}
