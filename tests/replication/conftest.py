"""Postgres and ClickHouse for the tests of one module; each test leaves them running, and the tables empty."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from harness.replication import Stage, open_stage

EMPTY = "delete from session; delete from dead_letter; delete from backfill"
DROP_SLOT = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active"
DROP_PUBLICATION = "drop publication if exists sessions_to_clickhouse_v1_publication"


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with open_stage(tmp_path_factory.mktemp("replication")) as stage:
        yield stage


@pytest.fixture
async def stage(systems: Stage) -> AsyncIterator[Stage]:
    yield systems
    async with systems.connection() as connection:
        await connection.execute(EMPTY)
        await connection.execute(DROP_SLOT)
        await connection.execute(DROP_PUBLICATION)
    async with systems.index() as index:
        await index.run(lambda client: client.command("TRUNCATE TABLE sessions_v1"))
