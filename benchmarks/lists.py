"""Lists of sessions of any length, in each index, filled by one statement.

Sessions have come at one pace until now, so a list that is a hundred times as long is a hundred times as old: in ClickHouse it
has more partitions, too. There every tenth session has a second version, and the latest ones have further versions in small parts,
as an index has that is kept up to date.

A page costs more where it goes over the end of a month, as it then takes rows from more partitions. So the date is always the
same: the middle of no list is near such an end, and every list has one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import asyncpg
from clickhouse_connect.driver.client import Client

from benchmarks.systems import make_database
from sessions_adapters import clickhouse, postgres
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import EnvironmentId, SessionId
from sessions_core.domain.pagination import Cursor
from sessions_core.ports.session_index import SessionIndex
from sessions_core.testing import ManualClock

ENVIRONMENT: Final = Environment(id=EnvironmentId("bench"))
NOW: Final = datetime(2026, 7, 2, 12, tzinfo=UTC)
APART: Final = timedelta(seconds=30)

_FILL_POSTGRES: Final = """
    insert into sessions.session (
        id, environment_id, organization_id, project_id, environment_type, external_id, type, task_identifier, trigger_config,
        tags, metadata, current_run_version, epoch, is_test, created_at, updated_at
    )
    select 'session_' || substr(md5(n::text), 1, 25), $1, $2, $3, $4, 'chat-' || n, 'chat.agent', 'echo', '{"basePayload":{}}',
        '{}', '{"n":1}', 1, 1, false, moment, moment
    from generate_series(0, $5::int - 1) as n, lateral (select $6::timestamptz + n * $7::interval as moment) as at
"""
_TIDY_POSTGRES: Final = "vacuum (analyze) sessions.session"
_FILL_CLICKHOUSE: Final = """
    INSERT INTO sessions_v1 (
        environment_id, organization_id, project_id, session_id, environment_type, friendly_id, external_id, type,
        task_identifier, metadata, created_at, updated_at, _version
    )
    SELECT {environment:String}, {organization:String}, {project:String},
        concat('session_', substring(lower(hex(MD5(toString(number)))), 1, 25)) AS id, {type:String}, id,
        concat('chat-', toString(number)), 'chat.agent', 'echo', '{"data":{"n":1}}',
        fromUnixTimestamp64Milli({begin:Int64} + number * {apart:Int64}, 'UTC') AS moment, moment, {version:UInt64}
    FROM numbers({first:UInt64}, {count:UInt64}) WHERE number % {step:UInt64} = 0
"""
_CLICKHOUSE_SETTINGS: Final = {"max_partitions_per_insert_block": 0, "enable_json_type": 1}
_OVER_A_MONTH: Final = timedelta(days=31)
_PAST_THE_END: Final = 20 * APART
_CHANGED: Final = 10
_LATEST: Final = 100
_LATE_WRITES: Final = 5


def begin(count: int) -> datetime:
    """Return when the first of *count* sessions was made."""
    return NOW - count * APART


def middle(count: int) -> Cursor:
    """Return the place in the middle of a list of *count* sessions."""
    return Cursor(begin(count) + count // 2 * APART, SessionId("session_"))


def end_of_month(count: int) -> Cursor:
    """Return a place from which a page goes over the end of a month: of that which ends nearest to the middle."""
    center = middle(count).created_at
    first = center.replace(day=1, hour=0, minute=0, second=0)
    end = min(first, (first + _OVER_A_MONTH).replace(day=1), key=lambda moment: abs(moment - center))
    return Cursor(end + _PAST_THE_END, SessionId("session_"))


@asynccontextmanager
async def in_postgres(url: str, count: int) -> AsyncIterator[SessionIndex]:
    """Open the index of a new database beside the one at *url*, with *count* sessions."""
    there = await make_database(url, f"list_{count}")
    await _fill_postgres(there, count)
    async with postgres.open_database(postgres.PostgresConfig(url=there)) as db:
        yield postgres.PostgresSessionIndex(db)


@asynccontextmanager
async def in_clickhouse(url: str, count: int) -> AsyncIterator[SessionIndex]:
    """Open the index of a new database of the engine at *url*, with *count* sessions."""
    config = clickhouse.ClickHouseConfig(url=url, database=f"list_{count}", timeout=timedelta(minutes=5))
    await clickhouse.migrate(config)
    async with clickhouse.open_database(config) as db:
        await db.run(partial(_fill_clickhouse, count))
        yield clickhouse.ClickHouseSessionIndex(db, ManualClock(NOW))


async def _fill_postgres(url: str, count: int) -> None:
    place = ENVIRONMENT
    scope = (place.id, place.organization_id, place.project_id, place.type.value)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_FILL_POSTGRES, *scope, count, begin(count), APART)
        await connection.execute(_TIDY_POSTGRES)
    finally:
        await connection.close()


def _fill_clickhouse(count: int, client: Client) -> None:
    _write(client, begin(count), 0, count, version=1)
    _write(client, begin(count), 0, count, version=2, step=_CHANGED)
    for version in range(3, 3 + _LATE_WRITES):
        _write(client, begin(count), count - _LATEST, _LATEST, version=version)


def _write(client: Client, moment: datetime, first: int, count: int, *, version: int, step: int = 1) -> None:
    parameters: dict[str, Any] = {
        "environment": ENVIRONMENT.id,
        "organization": ENVIRONMENT.organization_id,
        "project": ENVIRONMENT.project_id,
        "type": ENVIRONMENT.type.value,
        "begin": int(moment.timestamp() * 1000),
        "apart": APART // timedelta(milliseconds=1),
        "first": first,
        "count": count,
        "version": version,
        "step": step,
    }
    client.command(_FILL_CLICKHOUSE, parameters=parameters, settings=_CLICKHOUSE_SETTINGS)
