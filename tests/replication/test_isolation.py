"""The full system, lists from ClickHouse included: nothing of one environment shows in another."""

from __future__ import annotations

import attrs
import pytest

from harness.backends import with_redis_and_s2
from harness.in_process import open_site_on
from harness.isolation import drive
from harness.replication import Stage
from sessions_adapters.profiles import CLICKHOUSE, SCALE
from sessions_server.bundled import agents

pytestmark = [
    pytest.mark.needs_postgres,
    pytest.mark.needs_clickhouse,
    pytest.mark.needs_redis,
    pytest.mark.needs_s2,
    pytest.mark.slow,
    pytest.mark.timeout(180),
]


async def test_replicated_lists_of_one_environment_show_nothing_of_another(stage: Stage) -> None:
    backends = attrs.evolve(with_redis_and_s2(stage.backends), profile=SCALE, index=CLICKHOUSE)
    async with stage.replicating(), open_site_on(backends, agents=agents) as site:
        print(f"{SCALE}, {CLICKHOUSE}: {await drive(site, seed=7, steps=5, settle=stage.settle)}")
