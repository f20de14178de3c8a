"""The first start on an empty database, by several servers at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.backends import environment_of, open_backends
from harness.server import KEY, ServerProcess
from sessions_adapters.fernet import FernetCipher
from sessions_adapters.profiles import open_environments

SERVERS = 2
pytestmark = [pytest.mark.needs_postgres, pytest.mark.slow]


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
