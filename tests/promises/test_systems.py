"""The first and third promise while the systems below the server are killed with -9, or cut off, and it goes on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from anyio.from_thread import start_blocking_portal

from harness.backends import environment_of
from harness.postgres import PostgresProcess
from harness.postgres_proxy import open_postgres_proxy
from harness.redis import RedisServer
from harness.s2 import S2Server, new_basin
from harness.storm import Findings, storm
from sessions_adapters.profiles import POSTGRES, SCALE, Backends, migrate

pytestmark = [pytest.mark.needs_postgres, pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def postgres() -> Iterator[PostgresProcess]:
    """A server of one's own, which may be killed."""
    with tempfile.TemporaryDirectory(prefix="sessions-pg-") as folder, PostgresProcess(Path(folder)) as server:
        yield server


@pytest.fixture
async def backends(postgres: PostgresProcess, tmp_path: Path) -> Backends:
    """The ``postgres`` profile on that server."""
    backends = Backends(profile=POSTGRES, data=tmp_path / "data", database_url=postgres.url)
    await migrate(backends)
    return backends


def check(findings: Findings, kills: int) -> None:
    """Every message that was acknowledged is there once, in order, and has one answer."""
    print(f"\n{findings}")
    assert findings.problems == []
    assert findings.kills == kills
    assert findings.acknowledged > 100


async def test_kills_of_postgres_lose_and_double_nothing(
    backends: Backends, postgres: PostgresProcess, tmp_path: Path
) -> None:
    findings = await storm(
        tmp_path / "data", environment_of(backends), rounds=3, writers=32, sessions=8, seconds=1.0, victims=[postgres]
    )
    check(findings, 3)


async def test_answers_of_postgres_that_are_lost_with_their_connections_lose_and_double_nothing(
    backends: Backends, postgres: PostgresProcess, tmp_path: Path
) -> None:
    with (
        start_blocking_portal() as portal,  # the storm waits for its server, which waits for the proxy
        portal.wrap_async_context_manager(open_postgres_proxy(postgres.url)) as proxy,
    ):
        behind = environment_of(attrs.evolve(backends, database_url=proxy.url))
        findings = await storm(
            tmp_path / "data",
            behind,
            rounds=8,
            writers=32,
            sessions=8,
            seconds=0.3,
            victims=[proxy],
            is_answered=False,  # a turn whose output meets with a lost answer ends as one that failed
        )
    assert findings.retried > 0
    check(findings, 8)


@pytest.mark.needs_redis
@pytest.mark.needs_s2
async def test_kills_of_s2_redis_and_postgres_by_turns_lose_and_double_nothing(
    backends: Backends, postgres: PostgresProcess, tmp_path: Path
) -> None:
    for name in ("s2", "redis"):
        (tmp_path / name).mkdir()
    with S2Server(tmp_path / "s2", root=tmp_path / "s2" / "root") as s2, RedisServer(tmp_path / "redis") as redis:
        s2_url = f"s2://{new_basin()}?endpoint={s2.endpoint}"
        scale = attrs.evolve(backends, profile=SCALE, redis_url=redis.url, s2_url=s2_url)
        findings = await storm(
            tmp_path / "data",
            environment_of(scale),
            rounds=3,
            writers=16,
            sessions=4,
            seconds=1.0,
            victims=[s2, redis, postgres],
        )
    check(findings, 3)
