"""A short storm over a small fleet. A long one is run by hand: see its module."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from harness import fleet_storm

pytestmark = [pytest.mark.needs_postgres, pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(180)]


async def test_a_storm_over_servers_workers_and_their_database() -> None:

    with tempfile.TemporaryDirectory(prefix="sessions-storm-") as folder, ExitStack() as stack:
        fleet = await anyio.to_thread.run_sync(fleet_storm.start, stack, Path(folder), 2, 2)
        findings = await fleet_storm.storm(fleet, sessions=6, seconds=10, pause=1)
    print(f"\n{findings}")
    assert findings.problems == []
    assert findings.kills >= 2
    assert findings.turns == findings.stored > 0
