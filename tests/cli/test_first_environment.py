"""The first start on an empty database, by several servers at once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from harness.backends import environment_of, open_backends
from harness.server import KEY, ServerProcess
from sessions_adapters.fernet import FernetCipher
from sessions_adapters.profiles import open_environments, open_sessions
from sessions_core.errors import IncompatibleStoreError
from sessions_server.cli.serving import _first_environment

SERVERS = 2
pytestmark = [pytest.mark.needs_postgres, pytest.mark.slow]


async def test_of_processes_that_look_at_the_same_moment_one_makes_the_environment(tmp_path: Path) -> None:
    key = FernetCipher.generate_key().decode()
    async with open_backends("postgres", tmp_path) as empty:
        backends = attrs.evolve(empty, encryption_key=key)
        async with open_sessions(backends) as one, open_sessions(backends) as other:
            made = await asyncio.gather(*(_first_environment(sessions, None) for sessions in (one, other) * 4))
            assert len([root_key for root_key in made if root_key is not None]) == 1
            assert len(await one.environments.list_all()) == 1


async def test_who_comes_second_with_another_encryption_key_does_not_start(tmp_path: Path) -> None:
    async with open_backends("postgres", tmp_path) as backends:
        places = [attrs.evolve(backends, data=tmp_path / name) for name in ("one", "other")]
        async with open_sessions(places[0]) as one, open_sessions(places[1]) as other:
            both = (_first_environment(sessions, None) for sessions in (one, other))
            ends = await asyncio.gather(*both, return_exceptions=True)
        assert [type(end) for end in ends if not isinstance(end, str)] == [IncompatibleStoreError]
        assert len(list(tmp_path.glob("*/encryption.key"))) == 1


async def test_of_servers_that_start_at_once_on_an_empty_database_one_makes_the_environment(tmp_path: Path) -> None:
    async with open_backends("postgres", tmp_path) as backends:
        key = FernetCipher.generate_key().decode()
        environment = {**environment_of(backends), "SESSIONS_ENCRYPTION_KEY": key}
        servers = [ServerProcess(tmp_path / str(number), environment=environment) for number in range(SERVERS)]
        try:
            with ThreadPoolExecutor(SERVERS) as threads:
                list(threads.map(ServerProcess.start, servers))  # raises if one of them does not come up
        finally:
            for server in servers:
                server.__exit__(None, None, None)
        made = [server for server in servers if f"development key: {KEY}" in "\n".join(server.output)]
        assert len(made) == 1
        async with open_environments("postgres", url=backends.database_url, encryption_key=key) as environments:
            assert len(await environments.list_all()) == 1
