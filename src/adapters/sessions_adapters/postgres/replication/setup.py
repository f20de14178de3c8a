"""What the server needs before it can stream: made where it is missing, checked where it is there.

What somebody has set up otherwise is never changed: the error says what is wrong, and the SQL that puts it right.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from errno import errorcode
from typing import Final, NoReturn

import asyncpg
import attrs

from sessions_adapters.postgres.config import PostgresConfig
from sessions_adapters.postgres.connecting import Connection, connect
from sessions_adapters.postgres.failures import FAILURES
from sessions_adapters.postgres.replication.config import ReplicationConfig
from sessions_adapters.postgres.replication.rows import TABLE
from sessions_adapters.postgres.schema import COMMAND
from sessions_core.errors import IncompatibleStoreError, StoreUnavailableError

FEED: Final = "change feed"
PLUGIN: Final = "pgoutput"
LOGICAL: Final = "logical"
FULL: Final = b"f"
LOST: Final = "lost"
ACTIONS: Final = "insert, update, delete"
SET_LOCK_TIMEOUT: Final = "set lock_timeout = '5s'"
SET_NO_LOCK_TIMEOUT: Final = "set lock_timeout = 0"
WAL_LEVEL: Final = "select current_setting('wal_level')"
ROLE: Final = "select rolname, rolsuper or rolreplication as may_replicate from pg_roles where rolname = current_user"
FIND_TABLE: Final = """
    select c.relreplident as identity from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = $1 and c.relname = $2
"""
FIND_PUBLICATION: Final = (
    "select pubinsert and pubupdate and pubdelete as has_actions from pg_publication where pubname = $1"
)
FIND_PUBLISHED: Final = """
    select p.rowfilter is null as has_all_rows, not exists (
        select from pg_attribute a
        where a.attrelid = format('%I.%I', p.schemaname, p.tablename)::regclass
            and a.attnum > 0 and not a.attisdropped and a.attname <> all (p.attnames)
    ) as has_all_columns
    from pg_publication_tables p where p.pubname = $1 and p.schemaname = $2 and p.tablename = $3
"""
FIND_SLOT: Final = """
    select plugin, slot_type, database, database = current_database() as is_here, wal_status
    from pg_replication_slots where slot_name = $1
"""
CREATE_SLOT: Final = "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput');"
DROP_SLOT: Final = "SELECT pg_drop_replication_slot('{slot}');"
FORGET_BACKFILL: Final = "delete from backfill where slot = $1"
NEW_SLOT: Final = f"{DROP_SLOT} A new one, made at the next start, begins there: fill in what is older with a backfill"
NOT_STREAMED: Final = "What changed in the meantime is not streamed: fill it in with a backfill"
NOT_OURS: Final = "choose another name or, if nobody needs it"
NOT_WHOLE: Final = "The table of sessions does not send old rows whole"
FULL_IDENTITY: Final = "ALTER TABLE {table} REPLICA IDENTITY FULL;"
CREATE_PUBLICATION: Final = "CREATE PUBLICATION {publication} FOR TABLE {table} WITH (publish = '{actions}');"
ADD_TABLE: Final = "ALTER PUBLICATION {publication} ADD TABLE {table};"
WHOLE_TABLE: Final = (
    "ALTER PUBLICATION {publication} DROP TABLE {table}; ALTER PUBLICATION {publication} ADD TABLE {table};"
)
SET_ACTIONS: Final = "ALTER PUBLICATION {publication} SET (publish = '{actions}');"
SET_WAL_LEVEL: Final = "ALTER SYSTEM SET wal_level = 'logical'; and restart the server"
MAY_REPLICATE: Final = 'ALTER ROLE "{role}" REPLICATION;'
HAS_SESSIONS: Final = "select exists (select from {table})"
_logger: Final = logging.getLogger("sessions.postgres")
_logger.addHandler(logging.NullHandler())


async def prepare(config: PostgresConfig, options: ReplicationConfig) -> None:
    """Make or check what replication needs on the server.

    Raises:
        IncompatibleStoreError: It is not there and cannot be made from here, or it is something else; says how to mend it.
        StoreUnavailableError: No answer.
    """
    try:
        async with connect(config, patient=True) as connection:
            await connection.execute(SET_LOCK_TIMEOUT)  # nobody who works with the table shall wait behind us for long
            await _Preparation(connection, config.schema, options).run()
    except FAILURES as exc:
        raise unavailable(exc) from exc


def unavailable(cause: Exception) -> StoreUnavailableError:
    """Return the error for *cause*, with a note for those who run the server: what kind it is, and nothing of its text."""
    error = StoreUnavailableError(FEED)
    error.add_note(errorcode.get(getattr(cause, "errno", None) or 0) or type(cause).__name__)
    return error


async def find_problem(connection: Connection, schema: str, options: ReplicationConfig) -> str | None:
    """Return what is wrong with what is there already, and how to mend it. Changes nothing."""
    try:
        await _Preparation(connection, schema, options).check()
    except IncompatibleStoreError as error:
        return str(error)
    return None


async def explain_refusal(config: PostgresConfig) -> str | None:
    """Say why a connection for replication was refused, if it was for want of a right."""
    with suppress(*FAILURES):
        async with connect(config) as connection:
            role = await connection.fetchrow(ROLE)
            if role is not None and not role["may_replicate"]:
                return f"The role {role['rolname']!r} may not replicate: {MAY_REPLICATE.format(role=role['rolname'])}"
    return None


@attrs.frozen
class _Preparation:
    """One pass over all that is needed, in an order in which no change can slip through."""

    _connection: Connection
    _schema: str
    _options: ReplicationConfig

    async def run(self) -> None:
        await self._check_server()
        await self._check_slot()
        await self._ensure_identity()
        await self._ensure_publication()
        await self._check_published()
        await self._ensure_slot()

    async def check(self) -> None:
        """Look at what is there, and change nothing. What is missing altogether is made at the next start."""
        await self._check_server()
        await self._check_slot()
        if await self._has_publication():
            await self._check_published()
        if await self._find_slot() is not None and not await self._has_identity():
            raise IncompatibleStoreError(f"{NOT_WHOLE}: {self._sql(FULL_IDENTITY)}")

    def _sql(self, statement: str) -> str:
        """Return *statement* with all names in it. They are checked, and need no escapes."""
        return statement.format(
            slot=self._options.slot,
            publication=f'"{self._options.publication}"',
            table=f'"{self._schema}"."{TABLE}"',
            actions=ACTIONS,
        )

    async def _check_server(self) -> None:
        level = await self._connection.fetchval(WAL_LEVEL)
        if level != LOGICAL:
            raise IncompatibleStoreError(
                f"The server's wal_level is {level!r}, but replication needs 'logical': {SET_WAL_LEVEL}"
            )

    async def _check_slot(self) -> None:
        slot = await self._find_slot()
        if slot is not None and (problem := _problem_of(slot)):
            raise IncompatibleStoreError(
                f"The replication slot {self._options.slot!r} {problem}: {self._sql(NEW_SLOT)}"
            )

    async def _ensure_identity(self) -> None:
        """Make old rows be sent whole: a delete has to say where its row is, and an update may leave large values out."""
        if not await self._has_identity():
            await self._make(NOT_WHOLE, self._sql(FULL_IDENTITY))

    async def _has_identity(self) -> bool:
        table = await self._connection.fetchrow(FIND_TABLE, self._schema, TABLE)
        if table is None:
            raise IncompatibleStoreError(f"There is no table {self._sql('{table}')}; run `{COMMAND}` first")
        return bool(table["identity"] == FULL)

    async def _ensure_publication(self) -> None:
        """Make it, unless there is a slot already: what changed between the two would be left out, and nobody would know."""
        if not await self._has_publication():
            await self._make(f"There is no publication {self._options.publication!r}", self._sql(CREATE_PUBLICATION))

    async def _has_publication(self) -> bool:
        if await self._connection.fetchrow(FIND_PUBLICATION, self._options.publication) is not None:
            return True
        if await self._find_slot() is not None:
            await self._refuse("is missing, although its replication slot is there", CREATE_PUBLICATION)
        return False

    async def _check_published(self) -> None:
        publication = await self._connection.fetchrow(FIND_PUBLICATION, self._options.publication)
        table = await self._connection.fetchrow(FIND_PUBLISHED, self._options.publication, self._schema, TABLE)
        if publication is None or not publication["has_actions"]:
            await self._refuse(f"does not publish all of {ACTIONS}", SET_ACTIONS)
        if table is None:
            await self._refuse("does not have the table of sessions", ADD_TABLE)
        elif not (table["has_all_rows"] and table["has_all_columns"]):
            await self._refuse("has only some rows or columns of the table of sessions", WHOLE_TABLE)

    async def _refuse(self, what: str, statement: str) -> NoReturn:
        advice = self._sql(statement)
        if await self._find_slot() is not None:
            advice += f" {NOT_STREAMED}"
        raise IncompatibleStoreError(f"The publication {self._options.publication!r} {what}: {advice}")

    async def _ensure_slot(self) -> None:
        """Make it. A backfill beside an earlier one has missed what changed until now, so it has to begin anew.

        That waits for everybody who is writing anything on the server, however long that takes, and holds up nobody.
        """
        if await self._find_slot() is not None:
            return
        missing, statement = f"There is no replication slot {self._options.slot!r}", self._sql(CREATE_SLOT)
        async with self._allowed(missing, statement):
            await self._connection.execute(FORGET_BACKFILL, self._options.slot)
        await self._connection.execute(SET_NO_LOCK_TIMEOUT)
        await self._make(missing, statement)
        await self._tell_what_is_missing()

    async def _tell_what_is_missing(self) -> None:
        """Say that the slot is new: perhaps there was one before, which went with a server that has failed."""
        if await self._connection.fetchval(self._sql(HAS_SESSIONS)):
            _logger.warning(
                "the replication slot is new; what has changed until now comes with a backfill",
                extra={"slot": self._options.slot},
            )

    async def _find_slot(self) -> asyncpg.Record | None:
        return await self._connection.fetchrow(FIND_SLOT, self._options.slot)

    async def _make(self, missing: str, statement: str) -> None:
        """Carry out *statement*, unless somebody else has done so just now."""
        async with self._allowed(missing, statement):
            with suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
                await self._connection.execute(statement)

    @asynccontextmanager
    async def _allowed(self, missing: str, statement: str) -> AsyncIterator[None]:
        try:
            yield
        except asyncpg.InsufficientPrivilegeError as exc:
            raise IncompatibleStoreError(
                f"{missing}, and this role may not change that; as somebody who may: {statement}"
            ) from exc
        except asyncpg.ConfigurationLimitExceededError as exc:
            raise IncompatibleStoreError(
                f"{missing}, and the server has no room for one: raise max_replication_slots and restart it"
            ) from exc


def _problem_of(slot: asyncpg.Record) -> str | None:
    """Return what is wrong with *slot*, if anything."""
    if slot["slot_type"] != LOGICAL or slot["plugin"] != PLUGIN:
        return f"is {slot['slot_type']} with plugin {slot['plugin'] or 'none'}, not logical with {PLUGIN}; {NOT_OURS}"
    if not slot["is_here"]:
        return f"belongs to the database {slot['database']!r}; {NOT_OURS}"
    if slot["wal_status"] == LOST:
        return "has fallen too far behind, and the server has dropped the log it needs"
    return None
