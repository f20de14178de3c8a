"""The real systems that a profile needs: each started for the run, on data of its own on the measured disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import asyncpg
import attrs

from harness.postgres import PostgresProcess, with_database
from harness.redis import RedisServer
from harness.s2 import S2Server, new_basin
from harness.services import RUN
from sessions_adapters.profiles import EMBEDDED, POSTGRES, SCALE, STORE, Backends, migrate

PROFILES: Final = (EMBEDDED, POSTGRES, SCALE)
SETTINGS: Final = {"fsync": "on", "shared_buffers": "128MB"}
"""What tests do without, and what is a server's own default."""


@contextmanager
def started(profile: str, folder: Path) -> Iterator[Backends]:
    """Start what *profile* needs, below *folder*; say where it is.

    Raises:
        CannotStartError: A system is not there.
    """
    backends = Backends(profile=profile, data=folder / "server", index=STORE)
    with RUN, ExitStack() as stack:
        for system in _SYSTEMS[profile]:
            backends = system(stack, backends, folder)
        yield backends


async def make_database(url: str, name: str) -> str:
    """Make a database beside the one at *url*, with our schema; return its URL."""
    there = with_database(url, name)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'create database "{name}"')
    finally:
        await connection.close()
    await migrate(Backends(profile=POSTGRES, database_url=there))
    return there


def _postgres(stack: ExitStack, backends: Backends, folder: Path) -> Backends:
    folder.chmod(0o711)  # its server runs as another user where this is root
    server = stack.enter_context(PostgresProcess(_made(folder / "postgres"), SETTINGS))
    return attrs.evolve(backends, database_url=asyncio.run(make_database(server.url, "bench")))


def _redis(stack: ExitStack, backends: Backends, folder: Path) -> Backends:
    server = stack.enter_context(RedisServer(_made(folder / "redis")))
    return attrs.evolve(backends, redis_url=server.url)


def _s2(stack: ExitStack, backends: Backends, folder: Path) -> Backends:
    place = _made(folder / "s2")
    server = stack.enter_context(S2Server(place, root=place / "data"))
    return attrs.evolve(backends, s2_url=f"s2://{new_basin()}?endpoint={server.endpoint}")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


_SYSTEMS: Final[dict[str, tuple[Callable[[ExitStack, Backends, Path], Backends], ...]]] = {
    EMBEDDED: (),
    POSTGRES: (_postgres,),
    SCALE: (_postgres, _redis, _s2),
}
