"""Procrastinate's application, over connections that see one schema."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, LiteralString

import anyio
import procrastinate
import psycopg
from psycopg_pool import AsyncConnectionPool

from sessions_adapters.procrastinate.config import ProcrastinateConfig
from sessions_adapters.procrastinate.failures import translated

STATEMENT_SECONDS: Final = 10.0
LOCK_PATIENCE: Final = timedelta(seconds=2)
"""So long a statement waits for what somebody has locked: an append that wakes a run up waits along."""
LIFETIME: Final = timedelta(minutes=1)
"""A connection gives way to a new one after this: what it has prepared fails for good once the schema was made anew."""


def connection_options(config: ProcrastinateConfig, *, lock_timeout: timedelta = timedelta()) -> dict[str, Any]:
    """Return how a connection is opened; without a *lock_timeout* it waits for locks as long as it may take."""
    milliseconds = lock_timeout // timedelta(milliseconds=1)
    return {
        "application_name": "sessions",
        "options": f"-c search_path={config.schema} -c timezone=UTC -c lock_timeout={milliseconds}",
        "connect_timeout": max(1, round(config.timeout.total_seconds())),
        # Lets both sides notice within about 20 s that the other one has gone without a word.
        "keepalives_idle": 10,
        "keepalives_interval": 3,
        "keepalives_count": 3,
    }


async def _commit_each_statement(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.set_autocommit(True)


async def connect(config: ProcrastinateConfig, *, autocommit: bool = False) -> psycopg.AsyncConnection[Any]:
    """Open a connection outside the pool. A caller that is cancelled gets it first, and has to close it.

    Raises:
        psycopg.Error: It cannot be had.
        TimeoutError: Nor can it be known.
    """
    with anyio.fail_after(STATEMENT_SECONDS, shield=True):
        return await psycopg.AsyncConnection.connect(config.url, autocommit=autocommit, **connection_options(config))


@asynccontextmanager
async def open_app(config: ProcrastinateConfig) -> AsyncGenerator[procrastinate.App]:
    """Open the application for the block. Connections are opened when they are needed.

    Raises:
        DispatcherUnavailableError: They cannot be closed in time.
    """
    pool = AsyncConnectionPool(
        config.url,
        kwargs=connection_options(config, lock_timeout=LOCK_PATIENCE),
        min_size=0,
        max_size=config.connections,
        timeout=config.timeout.total_seconds(),
        max_lifetime=LIFETIME.total_seconds(),
        # Its tries come at twice the distance each time, and none is made beside them: after a long outage the next one
        # might be minutes away. So it gives up soon, and whoever asks next makes it try at once.
        reconnect_timeout=config.timeout.total_seconds(),
        configure=_commit_each_statement,
        check=AsyncConnectionPool.check_connection,
        open=False,
    )
    app = procrastinate.App(connector=procrastinate.PsycopgConnector())
    async with pool:
        with translated():
            await app.open_async(pool)
        yield app


async def ask(app: procrastinate.App, statement: LiteralString, **values: Any) -> list[dict[str, Any]]:
    """Carry *statement* out, and return its rows. A caller that is cancelled gets the answer first.

    (The driver asks the server to stop a statement that is cancelled, and waits for seconds if it is cancelled over that.)

    Raises:
        TimeoutError: No answer.
    """
    with anyio.fail_after(STATEMENT_SECONDS, shield=True):
        return await app.connector.execute_query_all_async(statement, **values)
