"""A short storm over a small fleet. A long one is run by hand: see its module."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from harness.fleet import start
from harness.fleet_storm import storm
from sessions_adapters.profiles import POSTGRES, SCALE

pytestmark = [pytest.mark.needs_postgres, pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(400)]
SYSTEMS_OF_SCALE = [pytest.mark.needs_redis, pytest.mark.needs_s2, pytest.mark.needs_clickhouse]


@pytest.mark.parametrize("profile", [POSTGRES, pytest.param(SCALE, marks=SYSTEMS_OF_SCALE)])
async def test_a_storm_over_servers_workers_and_their_systems(profile: str) -> None:
    with tempfile.TemporaryDirectory(prefix="sessions-storm-") as folder, ExitStack() as stack:
        fleet = await anyio.to_thread.run_sync(start, stack, Path(folder), 2, 2, profile)
        findings = await storm(fleet, sessions=10, seconds=10, pause=1, rate=60)
    print(f"\n{findings}")
    assert findings.problems == []
    assert findings.kills >= 2
    assert findings.turns == findings.stored > 0
    assert findings.samples > 0
