"""What ``sessions doctor`` wants to know of a Postgres server. Changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

from sessions_adapters.postgres import schema
from sessions_adapters.postgres.clock import NOW
from sessions_adapters.postgres.config import PostgresConfig
from sessions_adapters.postgres.connecting import Connection, connect
from sessions_adapters.postgres.environment_store import FIND_SEALED
from sessions_adapters.postgres.failures import translated
from sessions_core.errors import IncompatibleStoreError, StoreUnavailableError

SERVER: Final = """
    select current_setting('server_version_num')::int as version, current_setting('server_version') as release,
        current_setting('fsync') = 'on' as fsync, current_setting('synchronous_commit') <> 'off' as commits,
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int as room,
        (select count(*) from pg_stat_activity where backend_type = 'client backend') as connections,
        current_setting('wal_level') as wal_level,
        current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots) as free_slots,
        (select rolreplication or rolsuper from pg_roles where rolname = current_user) as may_replicate,
        pg_is_in_recovery() as is_standby
"""
FORBIDDEN: Final = """
    select relname from pg_class
    where relnamespace = (select oid from pg_namespace where nspname = $1) and relkind in ('r', 'p') and not (
        has_table_privilege(oid, 'select') and (relname = 'schema_version' or (
            has_table_privilege(oid, 'insert') and has_table_privilege(oid, 'update') and has_table_privilege(oid, 'delete')
        ))
    )
    order by relname
"""


@attrs.frozen(kw_only=True)
class PostgresFacts:
    """What a server has said.

    Attributes:
        version: Such as 180001.
        release: Such as ``18.1``.
        is_durable: A commit that was acknowledged survives a crash of its machine.
        room: How many connections ordinary roles may have open, about.
        connections: How many are open.
        free_slots: How many replication slots can still be made.
        skew: How far its clock is before ours; nothing within the time that the answer took.
        is_standby: It can only be read.
        forbidden: The tables that our role may not read and write.
        problem: What is wrong with the schema, and what to do; None if it fits.
        sealed: The oldest and the newest root key as they are stored.
    """

    version: int
    release: str
    is_durable: bool
    room: int
    connections: int
    wal_level: str
    free_slots: int
    may_replicate: bool
    is_standby: bool
    forbidden: tuple[str, ...]
    skew: timedelta
    problem: str | None
    sealed: tuple[bytes, ...]


async def inspect(config: PostgresConfig) -> PostgresFacts:
    """Ask the server.

    Raises:
        StoreUnavailableError: It gives no answer, or refuses.
    """
    with translated(StoreUnavailableError):
        async with connect(config) as connection:
            row = await connection.fetchrow(SERVER)
            assert row is not None
            problem = await _problem(connection, config)
            forbidden = () if problem else await _forbidden(connection, config)
            return PostgresFacts(
                version=row["version"],
                release=row["release"],
                is_durable=row["fsync"] and row["commits"],
                room=row["room"],
                connections=row["connections"],
                wal_level=row["wal_level"],
                free_slots=row["free_slots"],
                may_replicate=bool(row["may_replicate"]),
                is_standby=row["is_standby"],
                forbidden=forbidden,
                skew=await _skew(connection),
                problem=problem,
                sealed=() if problem or forbidden else await _sealed(connection),
            )


async def _problem(connection: Connection, config: PostgresConfig) -> str | None:
    try:
        await schema.check(connection, config)
    except IncompatibleStoreError as error:
        return str(error)
    return None


async def _forbidden(connection: Connection, config: PostgresConfig) -> tuple[str, ...]:
    return tuple(row["relname"] for row in await connection.fetch(FORBIDDEN, config.schema))


async def _sealed(connection: Connection) -> tuple[bytes, ...]:
    return tuple(row["sealed"] for row in await connection.fetch(FIND_SEALED))


async def _skew(connection: Connection) -> timedelta:
    before = datetime.now(UTC)
    theirs: datetime = await connection.fetchval(NOW)
    after = datetime.now(UTC)
    return max(theirs - after, timedelta()) + min(theirs - before, timedelta())
