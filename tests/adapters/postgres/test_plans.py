"""Costs that must not grow: what the statements touch in a database that is full."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, Final, TypeAlias

import asyncpg
import pytest

from contract.makers import ENV_A, START, make_channel, record
from sessions_adapters.postgres import (
    PostgresChannelLog,
    PostgresConfig,
    PostgresDatabase,
    environment_store,
    log_reader,
    log_writer,
    open_database,
    session_index,
    session_store,
    token_ledger,
    waitpoint_store,
)
from sessions_adapters.postgres import backlog as backlogs
from sessions_adapters.postgres.values import channel_key
from sessions_core.domain.channel import Appended, Channel
from sessions_core.domain.environment import USE_PRECISION, hash_range, key_hash, key_id_of
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.domain.ids import SessionId
from sessions_core.domain.pagination import Cursor, PageRequest, SessionFilter

pytestmark = pytest.mark.needs_postgres

Admin: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

MANY: Final = 20_000
FILL: Final = f"""
    insert into session (id, environment_id, organization_id, project_id, environment_type, external_id, type,
        task_identifier, trigger_config, tags, current_run_version, epoch, is_test, created_at, updated_at)
    select 'session_' || i, 'env_a', 'org', 'proj', 'DEVELOPMENT', 'e' || i, 'chat', 'echo', '{{}}',
        case when i % 1000 = 0 then array['rare', 'all'] else array['all'] end, 1, 0, false,
        timestamptz '2026-01-01Z' + i * interval '1 ms', now()
    from generate_series(1, {MANY}) as i;
    insert into run (id, session_id, task_identifier, payload, config, reason, version, created_at, status, attempt, epoch,
        start_cursor, start_out_tail, failures, dispatched_at, ended_at, settled_at)
    select 'run_' || i, 'session_' || i, 'echo', '{{}}', '{{}}', 'initial', 1, now(), 'COMPLETED_SUCCESSFULLY', 1, 1,
        -1, 0, 0, now(), now(), now()
    from generate_series(1, {MANY}) as i;
    insert into channel (id, environment_id, key, io, name)
    select decode(md5(i::text), 'hex'), 'env_a', 'e' || i, 'in', '' from generate_series(1, {MANY}) as i;
    insert into record (channel, seq, timestamp, body)
    select decode(md5(i::text), 'hex'), 0, 0, 'x' from generate_series(1, {MANY}) as i;
    insert into waitpoint (id, channel, environment_id, key, io, name, run_id, after_seq, created_at, tags, status)
    select 'waitpoint_' || i, decode(md5(i::text), 'hex'), 'env_a', 'e' || i, 'in', '', 'run_' || i, -1, now(), '{{}}',
        'COMPLETED'
    from generate_series(1, {MANY}) as i;
    analyze;
"""


@pytest.fixture
async def full(admin: Admin) -> Admin:
    """A connection to a database with many sessions, runs, channels and waitpoints."""
    await admin.execute(FILL)
    return admin


async def blocks_of(connection: Admin, statement: str, *values: Any) -> int:
    """Return how many blocks of 8 KiB *statement* looks at, once the first look has tidied up behind the writers."""
    await _look(connection, statement, values)
    return await _look(connection, statement, values)


async def _look(connection: Admin, statement: str, values: tuple[Any, ...]) -> int:
    found = await connection.fetchval(f"explain (analyze, buffers, format json) {statement}", *values)
    plan = json.loads(found)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def page_of(wanted: SessionFilter, request: PageRequest) -> tuple[str, list[Any]]:
    query = session_index._Query()
    query.admit(wanted, None)
    return query.page(wanted, request), query.values


CURSOR: Final = Cursor(START + timedelta(seconds=10), SessionId("session_10000"))
PAGES: Final = {
    "first": (SessionFilter(environment_id=ENV_A.id), PageRequest(size=50), 150),
    "middle": (SessionFilter(environment_id=ENV_A.id), PageRequest(size=50, cursor=CURSOR), 150),
    "of a common tag": (SessionFilter(environment_id=ENV_A.id, tags=("all",)), PageRequest(size=50), 400),
    "of a rare tag": (SessionFilter(environment_id=ENV_A.id, tags=("rare",)), PageRequest(size=50), 200),
}


@pytest.mark.parametrize(("wanted", "request_", "most"), PAGES.values(), ids=PAGES)
async def test_a_page_touches_about_as_many_blocks_as_it_has_rows(
    full: Admin, wanted: SessionFilter, request_: PageRequest, most: int
) -> None:
    statement, values = page_of(wanted, request_)
    assert len(await full.fetch(statement, *values)) in (20, 51)
    assert await blocks_of(full, statement, *values) <= most


APPEND: Final = """
    select * from append_records(
        array[0], array[$1::bytea], array['idle:0'], array[$2::bytea], array['body'::bytea], array[null::text],
        1, null, 1000, 900000
    )
"""
APPEND_ONE: Final = (
    "select * from append_record($1::bytea, 'idle:0', $2::bytea, 'body'::bytea, null, null, 1000, 900000)"
)
LOOKS: Final = {
    "a session by its id": (session_store.FIND_BY_ID, ("session_7", "env_a")),
    "a session by its external id": (session_store.FIND_BY_EXTERNAL_ID, ("e7", "env_a")),
    "undispatched runs": (backlogs.LIST_UNDISPATCHED, (200, START, None, *backlogs.FROM_THE_START)),
    "stalled runs": (backlogs.LIST_STALLED, (200, START)),
    "unsettled runs": (backlogs.LIST_UNSETTLED, (200,)),
    "unsealed sessions": (backlogs.LIST_UNSEALED, (200, None)),
    "waiting waitpoints": (waitpoint_store.LIST_WAITING, (200, "")),
    "due waitpoints": (waitpoint_store.LIST_DUE, (200, None)),
    "tags": (session_index.LIST_TAGS, ("env_a",)),
}


@pytest.mark.parametrize(("statement", "values"), LOOKS.values(), ids=LOOKS)
async def test_a_look_that_finds_little_touches_little(full: Admin, statement: str, values: tuple[Any, ...]) -> None:
    assert await blocks_of(full, statement, *values) <= 30


FILL_KEYS: Final = f"""
    insert into environment (id, organization_id, project_id, type, created_at)
    select 'env_' || i, 'org', 'proj', 'DEVELOPMENT', now() from generate_series(1, {MANY // 10}) as i;
    insert into access_key (hash, environment_id, name, scopes, sealed, created_at, expires_at)
    select encode(sha256(('key_' || i)::bytea), 'hex'), 'env_' || (i / 10 + 1), 'name', array['admin'], null, now(), null
    from generate_series(1, {MANY - 1}) as i;
    insert into access_key (hash, environment_id, sealed, created_at, expires_at)
    select encode(sha256(('root_' || i)::bytea), 'hex'), 'env_' || (i / 10 + 1), 'sealed', now(),
        case when i % 10 > 0 then now() end
    from generate_series(1, {MANY - 1}) as i;
    insert into used_token (environment_id, hash, expires_at)
    select 'env_' || (i / 10 + 1), md5(i::text), now() + i * interval '1 hour' from generate_series(1, {MANY}) as i;
    analyze;
"""
HASHES: Final = hash_range(key_id_of(key_hash("key_77"))) or ()
KEY_STATEMENTS: Final[dict[str, tuple[str, tuple[Any, ...]]]] = {
    "a key": (environment_store.FIND_GRANT, (key_hash("key_77"), None)),
    "the root keys of an environment": (environment_store.FIND_ROOT_KEYS, ("env_7", None)),
    "the additional keys of an environment": (environment_store.LIST_KEYS, ("env_7",)),
    "a root key that is retired": (environment_store.RETIRE_ROOT_KEY, ("env_7", timedelta(hours=1), None)),
    "an additional key that is revoked": (environment_store.REVOKE_KEY, ("env_8", *HASHES, None)),
    "an additional key that is used": (environment_store.RECORD_USE, ("env_8", *HASHES, None, USE_PRECISION)),
    "a one-time token": (token_ledger.CONSUME, ("env_7", "new", START + timedelta(days=3650), None)),
}


async def test_a_statement_about_keys_touches_those_that_it_is_about(admin: Admin) -> None:
    await admin.execute(FILL_KEYS)
    blocks = {name: await blocks_of(admin, statement, *values) for name, (statement, values) in KEY_STATEMENTS.items()}
    assert {name: count for name, count in blocks.items() if count > 40} == {}


async def make_plans(connection: Admin, append: str, channel: bytes) -> None:
    """Append a record, and again: what is known already may take another way."""
    await connection.fetch(append, channel, b"one")
    await connection.fetch(append, channel, b"one")


@pytest.mark.parametrize("append", [APPEND, APPEND_ONE], ids=["several", "one"])
async def test_a_long_channel_is_appended_to_and_read_like_a_short_one(url: str, full: Admin, append: str) -> None:
    channel = make_channel("long")
    key = channel_key(channel)
    async with open_database(PostgresConfig(url=url)) as db:
        await PostgresChannelLog(db).append(channel, [record("x")] * MANY, guard=UNTOUCHED)
    await full.execute("analyze record")
    read, back = log_reader.read_values(key, MANY // 2, 16, 1000), log_reader.read_values(key, MANY, 16, 1000)
    assert await blocks_of(full, log_reader.READ, *read) <= 30
    assert await blocks_of(full, log_reader.READ_BACK, *back) <= 30
    assert await blocks_of(full, log_reader.READ_TAIL, key) <= 10
    await make_plans(full, append, key)
    assert await blocks_of(full, append, key, b"two") <= 60


@pytest.mark.parametrize("append", [APPEND, APPEND_ONE], ids=["several", "one"])
async def test_an_append_planned_while_the_tables_were_empty_is_right_when_they_are_full(
    admin: Admin, append: str
) -> None:
    channel = channel_key(make_channel("0"))
    await admin.execute(
        "insert into channel (id, environment_id, key, io, name) values ($1, 'e', 'k', 'in', '')", channel
    )
    await make_plans(admin, append, channel)
    await admin.execute(
        "alter table channel set (autovacuum_enabled = off); alter table part set (autovacuum_enabled = off)"
    )
    await admin.execute(FILL.replace("analyze;", ""))
    assert await blocks_of(admin, append, channel, b"two") <= 60
    await admin.execute("alter table channel reset (autovacuum_enabled); alter table part reset (autovacuum_enabled)")


async def statements_of(db: PostgresDatabase, work: Awaitable[object]) -> list[str]:
    """Return the statements that are sent over the connection that appends, while *work* is carried out."""
    connection, sent = db.log._connection, list[str]()
    assert connection is not None
    with connection.query_logger(lambda query: sent.append(query.query)):
        await work
    return sent


async def test_an_append_is_one_statement_and_so_are_those_of_many_writers_at_once(url: str) -> None:
    channels = [make_channel(f"busy-{number}") for number in range(64)]
    async with open_database(PostgresConfig(url=url)) as db:
        log = PostgresChannelLog(db)

        def append(channel: Channel, part: str) -> Awaitable[list[Appended]]:
            return log.append(channel, [record("x", part=part)], guard=UNTOUCHED)

        await asyncio.gather(*(append(channel, "first") for channel in channels))  # makes the channels' rows
        assert await statements_of(db, append(channels[0], "alone")) == [log_writer.APPEND_ONE]
        crowd = asyncio.gather(*(append(channel, "crowd") for channel in channels))
        assert await statements_of(db, crowd) == [log_writer.APPEND]
