"""Several servers and workers on systems of their own, each a process that may be killed."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs

from harness.backends import environment_of
from harness.clickhouse import ClickHouseServer
from harness.postgres import PostgresProcess
from harness.redis import RedisServer
from harness.s2 import S2Server, new_basin
from harness.server import ServerProcess
from harness.storm import Victim
from harness.worker import WorkerProcess
from sessions_adapters.profiles import POSTGRES, SCALE, Backends, migrate

AGENTS: Final = "harness.workers_agents:agents"
TESTS: Final = str(Path(__file__).parents[1])
STALL_SECONDS: Final = 3
KEY_OF_ROOT_KEYS: Final = "c2Vzc2lvbnMtdGVzdHMtc2Vzc2lvbnMtdGVzdHMtMTI="


@attrs.define(eq=False)
class Fleet:
    """Servers, workers and their systems.

    Attributes:
        others: The systems besides Postgres.
    """

    backends: Backends
    postgres: PostgresProcess
    others: list[RedisServer | S2Server | ClickHouseServer]
    servers: list[ServerProcess]
    workers: list[WorkerProcess]

    @property
    def systems(self) -> list[Victim]:
        """Postgres and the others."""
        return [self.postgres, *self.others]

    @property
    def victims(self) -> list[Victim]:
        """Whatever may be killed."""
        return [*self.servers, *self.workers, *self.systems]


def start(
    stack: ExitStack, folder: Path, servers: int, workers: int, profile: str = POSTGRES, **variables: str
) -> Fleet:
    """Start a fleet with empty systems; *stack* ends it. All processes get the *variables*."""
    folder.chmod(0o711)  # the database's server runs as another user where this is root
    postgres = stack.enter_context(PostgresProcess(_place(folder, "postgres")))
    backends = Backends(profile=POSTGRES, data=folder, database_url=postgres.url, encryption_key=KEY_OF_ROOT_KEYS)
    others: list[RedisServer | S2Server | ClickHouseServer] = []
    if profile == SCALE:
        backends, others = _scaled(stack, folder, backends)
    asyncio.run(migrate(backends))
    environment = environment_of(backends) | {"SESSIONS_STALL": str(STALL_SECONDS), "SESSIONS_LOG_LEVEL": "ERROR"}
    environment |= {"PYTHONPATH": TESTS, "SESSION_REPLICATION_LEADER_LOCK_RETRY_INTERVAL_MS": "200"} | variables
    serving = environment | {"SESSION_REPLICATION_ENABLED": str(int(profile == SCALE))}
    return Fleet(
        backends,
        postgres,
        others,
        [stack.enter_context(ServerProcess(folder, agents="none", environment=serving)) for _ in range(servers)],
        [stack.enter_context(WorkerProcess(folder, agents=AGENTS, environment=environment)) for _ in range(workers)],
    )


def _scaled(
    stack: ExitStack, folder: Path, backends: Backends
) -> tuple[Backends, list[RedisServer | S2Server | ClickHouseServer]]:
    """Start what the profile ``scale`` needs besides Postgres; channels lie on a folder, so they outlive a kill."""
    redis = stack.enter_context(RedisServer(_place(folder, "redis")))
    place = _place(folder, "s2")
    s2 = stack.enter_context(S2Server(place, place / "root"))
    clickhouse = stack.enter_context(ClickHouseServer(_place(folder, "clickhouse")))
    backends = attrs.evolve(
        backends,
        profile=SCALE,
        redis_url=redis.url,
        s2_url=f"s2://{new_basin()}?endpoint={s2.endpoint}",
        clickhouse_url=clickhouse.url,
        index="clickhouse",
    )
    return backends, [redis, s2, clickhouse]


def _place(folder: Path, name: str) -> Path:
    place = folder / name
    place.mkdir()
    return place
