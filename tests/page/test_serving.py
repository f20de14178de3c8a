"""What ``sessions serve`` says about the chat page, and whether it is there. Needs no browser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from harness.server import ServerProcess

EVERYWHERE = {"SESSIONS_HOST": "0.0.0.0"}


@pytest.mark.parametrize(
    ("environment", "host", "status"),
    [
        ({}, "127.0.0.1", 200),
        ({}, "localhost", 200),
        ({}, "sessions.test", 404),
        (EVERYWHERE, "127.0.0.1", 404),
        ({**EVERYWHERE, "SESSIONS_DEMO": "1"}, "sessions.test", 200),
    ],
    ids=["local", "localhost", "another name", "everywhere", "demo"],
)
def test_the_page_is_announced_and_served_to_whom_it_is_for(
    tmp_path: Path, environment: Mapping[str, str], host: str, status: int
) -> None:
    with ServerProcess(tmp_path / "data", environment=dict(environment)) as server:
        assert answer(server, host) == status
        assert server.stop() == 0
        told = [line for line in server.output if "in the browser: " in line]
    assert bool(told) == (not environment or "SESSIONS_DEMO" in environment)
    assert told == [] or told[0].endswith(f"{server.address}/")


def answer(server: ServerProcess, host: str) -> int:
    request = Request(f"http://127.0.0.1:{server.port}/", headers={"Host": f"{host}:{server.port}"})
    try:
        with urlopen(request, timeout=10) as response:
            assert b"<h1" in response.read()
            return int(response.status)
    except HTTPError as error:
        with error:
            return error.code
