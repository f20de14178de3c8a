"""Empty Postgres databases with our schemas, one for each test, cheap.

They are made from a template and used again, emptied, by a later test. A test that leaves a connection behind fails.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
import asyncpg
import attrs

from harness.postgres import POSTGRES, with_database
from harness.services import RUN
from sessions_adapters import procrastinate
from sessions_adapters.postgres import PostgresConfig, migrate

SCHEMA: Final = "sessions"
JOBS_SCHEMA: Final = "sessions_procrastinate"
LIST_TABLES: Final = """
    select schemaname, tablename from pg_tables
    where schemaname = any($1) and tablename not in ('schema_version', 'sessions_migration')
"""
OTHERS: Final = """
    select count(*) from pg_stat_activity
    where datname = $1 and pid <> pg_backend_pid() and backend_type in ('client backend', 'walsender')
"""
LEAVING_SECONDS: Final = 5


@attrs.define(eq=False)
class Databases:
    """Databases of one server that are not in use."""

    url: str
    _idle: list[str] = attrs.field(init=False, factory=list)
    _made: int = attrs.field(init=False, default=0)
    _has_template: bool = attrs.field(init=False, default=False)

    @property
    def _prefix(self) -> str:
        return f"sessions_test_{os.getpid()}"

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[str]:
        """Give the URL of a database that has our schemas and nothing else."""
        name = self._idle.pop() if self._idle else await self._make()
        url = with_database(self.url, name)
        yield url
        await self._clean(url, name)
        self._idle.append(name)

    @asynccontextmanager
    async def bare(self) -> AsyncIterator[str]:
        """Give the URL of a database without any schema."""
        self._made += 1
        name = f"{self._prefix}_bare_{self._made}"
        await self._on_server(f'create database "{name}"')
        try:
            yield with_database(self.url, name)
        finally:
            with anyio.CancelScope(shield=True):
                await self._on_server(f'drop database "{name}" with (force)')

    async def _make(self) -> str:
        template = f"{self._prefix}_template"
        if not self._has_template:
            await self._on_server(f'create database "{template}"')
            self._has_template = True
            template_url = with_database(self.url, template)
            await migrate(PostgresConfig(url=template_url, schema=SCHEMA))
            await procrastinate.migrate(procrastinate.ProcrastinateConfig(url=template_url, schema=JOBS_SCHEMA))
        self._made += 1
        name = f"{self._prefix}_{self._made}"
        await self._on_server(f'create database "{name}" template "{template}"')
        return name

    async def _on_server(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _clean(self, url: str, name: str) -> None:
        connection = await asyncpg.connect(url, server_settings={"search_path": JOBS_SCHEMA})  # its triggers need it
        try:
            with anyio.fail_after(LEAVING_SECONDS):
                while await connection.fetchval(OTHERS, name):
                    await anyio.sleep(0.002)
            tables = await connection.fetch(LIST_TABLES, (SCHEMA, JOBS_SCHEMA))
            await connection.execute(
                "".join(f'delete from {row["schemaname"]}."{row["tablename"]}";' for row in tables)
            )
        finally:
            await connection.close()

    def drop_all(self) -> None:
        """Remove every database that was made. For a server that is not ours."""

        async def drop() -> None:
            connection = await asyncpg.connect(self.url)
            made = await connection.fetch(
                "select datname from pg_database where starts_with(datname, $1)", self._prefix
            )
            for row in made:
                await connection.execute(f'drop database "{row["datname"]}" with (force)')
            await connection.close()

        with suppress(OSError, asyncpg.PostgresError):
            anyio.run(drop)


def look(url: str, statement: str) -> list[asyncpg.Record]:
    """Return what *statement* finds, from a synchronous place of a test that has an event loop already."""

    async def fetch() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, fetch()).result()


def is_anywhere(url: str, text: str) -> bool:
    """Tell whether *text* is in any column of any row."""
    rows = []
    for table in look(url, f"select tablename from pg_tables where schemaname = '{SCHEMA}'"):
        rows += look(url, f'select given::text as content from {SCHEMA}."{table["tablename"]}" as given')
    return any(text in row["content"] or text.encode().hex() in row["content"] for row in rows)


_known: dict[str, Databases] = {}


def find_databases() -> Databases:
    """Return the databases of the server that the tests share."""
    url = POSTGRES.get()
    if url not in _known:
        _known[url] = Databases(url)
        RUN.callback(_known[url].drop_all)  # before the server ends: what came last goes first
    return _known[url]
