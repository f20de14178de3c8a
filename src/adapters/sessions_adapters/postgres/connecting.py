"""Connections: how they are set up, alone and in a pool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import anyio
import asyncpg

from sessions_adapters.postgres.config import PostgresConfig
from sessions_adapters.postgres.failures import FAILURES
from sessions_adapters.postgres.values import MILLISECOND

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection = Pool = object

GRACE_SECONDS: Final = 2.0
"""A server that has not stopped a statement so long after its time is over is taken for dead."""
IDLE_TRANSACTION_SECONDS: Final = 60
KEEPALIVE: Final = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "3", "tcp_keepalives_count": "3"}
"""Lets the server notice within about 20 s that we are gone without a word, and give up our locks."""
CLOSING_SECONDS: Final = 5.0


def _options(config: PostgresConfig, *, patient: bool, lock_timeout: timedelta = timedelta()) -> dict[str, Any]:
    statement = 0 if patient else config.statement_timeout // MILLISECOND
    return {
        "dsn": config.url,
        "timeout": config.connect_timeout.total_seconds(),
        "command_timeout": None if patient else config.statement_timeout.total_seconds() + GRACE_SECONDS,
        "server_settings": {
            "application_name": "sessions",
            "search_path": config.schema,
            "timezone": "UTC",
            "statement_timeout": str(statement),
            "lock_timeout": str(lock_timeout // MILLISECOND),
            "idle_in_transaction_session_timeout": f"{IDLE_TRANSACTION_SECONDS}s",
            "jit": "off",  # our statements are short: compiling one costs more than it saves
            **KEEPALIVE,
        },
    }


@asynccontextmanager
async def connect(config: PostgresConfig, *, patient: bool = False) -> AsyncIterator[Connection]:
    """Open a connection outside the pool for the block.

    Args:
        config: Says where.
        patient: Let statements take as long as they need.
    """
    connection = await open_connection(config, patient=patient)
    try:
        yield connection
    finally:
        await close_connection(connection)


async def open_connection(
    config: PostgresConfig, *, patient: bool = False, lock_timeout: timedelta = timedelta()
) -> Connection:
    """Open a connection outside the pool. Close it with :func:`close_connection`.

    Args:
        config: Says where.
        patient: Let statements take as long as they need.
        lock_timeout: So long a statement waits for a lock; none: as long as it may take.
    """
    options = _options(config, patient=patient, lock_timeout=lock_timeout)
    connection: Connection = await asyncpg.connect(**options)
    return connection


async def close_connection(connection: Connection) -> None:
    """Close it politely if that goes quickly, else at once."""
    try:
        with anyio.CancelScope(shield=True):
            await connection.close(timeout=CLOSING_SECONDS)
    except FAILURES:
        connection.terminate()


@asynccontextmanager
async def open_pool(config: PostgresConfig) -> AsyncIterator[Pool]:
    """Open the pool. Its connections are opened when they are needed."""
    pool: asyncpg.Pool[asyncpg.Record] = await asyncpg.create_pool(
        **_options(config, patient=False),
        min_size=0,
        max_size=config.connections,
        reset=_keep_as_it_is,
    )
    try:
        yield pool
    finally:
        await _close_pool(pool)


async def _keep_as_it_is(_: object) -> None:
    """Save the round trip: nobody here changes a connection's settings. The driver itself ends open transactions."""


async def _close_pool(pool: Pool) -> None:
    with anyio.move_on_after(CLOSING_SECONDS, shield=True) as patience:
        await pool.close()
    if patience.cancelled_caught:
        pool.terminate()
