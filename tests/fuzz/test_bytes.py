"""Damaged bytes on the socket of a real server: it answers or closes, stays small, and goes on to serve others.

The long form: ``PYTHONPATH=tests python -m harness.fuzz --examples 0 --edges 0 --bytes 20000 --seed 7``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.fuzz_bytes import Hurler
from harness.fuzz_play import MOST_MEMORY, memory, peak_memory
from harness.server import KEY, ServerProcess

CONNECTIONS = 600

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("seed", [1])
def test_damaged_requests_are_answered_or_closed(tmp_path: Path, seed: int) -> None:
    with ServerProcess(tmp_path / "data") as server:
        Hurler(server.port, KEY).hurl(8)
        before = memory(server.pid)
        hurled = Hurler(server.port, KEY, seed).hurl(CONNECTIONS)
        print(*hurled.lines(), sep="\n")
        assert hurled.problems == []
        assert peak_memory(server.pid) - before < MOST_MEMORY
        assert [line for line in server.output if "Traceback" in line or "ERROR" in line] == []
