"""Heartbeats of runs, from an event loop that is not the database's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager

from sessions_adapters.postgres.config import PostgresConfig
from sessions_adapters.postgres.connecting import connect
from sessions_adapters.postgres.failures import translated
from sessions_adapters.postgres.run_store import BEAT, columns_of, lost_of
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import Holding
from sessions_core.errors import StoreUnavailableError


@asynccontextmanager
async def open_beat(
    config: PostgresConfig,
) -> AsyncIterator[Callable[[Collection[Holding]], Awaitable[frozenset[RunId]]]]:
    """Give ``RunStore.beat`` on a connection of its own, with the database's time. Open it anew when it has failed.

    Raises:
        StoreUnavailableError: The connection cannot be had, or broke.
    """
    with translated(StoreUnavailableError):
        async with connect(config) as connection:

            async def beat(holdings: Collection[Holding]) -> frozenset[RunId]:
                runs, attempts = columns_of(holdings)
                try:
                    return lost_of(runs, await connection.fetch(BEAT, runs, attempts, None))
                except BaseException:
                    connection.terminate()  # whatever it is in the middle of, the next beat must not wait for it
                    raise

            yield beat
