"""One server for all tests of commands that do it no harm; each has sessions of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.server import ServerProcess
from harness.shell import Shell, shell_for


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    pings = {"SESSIONS_PING_INTERVAL": "0.3"}
    with ServerProcess(tmp_path_factory.mktemp("data"), environment=pings) as server:
        yield server


@pytest.fixture
def shell(server: ServerProcess) -> Shell:
    return shell_for(server)
