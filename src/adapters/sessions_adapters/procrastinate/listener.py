"""Hearing what happens to jobs, on one connection, whose socket the event loop watches.

Procrastinate's channel belongs to the whole database: what comes may as well be about the jobs of another application, or mean
nothing at all. So news are hints, after which the tables are asked what is true.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import psycopg
from procrastinate.manager import get_channel_for_queues
from psycopg.sql import SQL, Identifier

from sessions_adapters.procrastinate.config import ProcrastinateConfig
from sessions_adapters.procrastinate.connecting import STATEMENT_SECONDS, connect

ABORT: Final = "abort_job_requested"
CHECK_SECONDS: Final = 10.0
"""So often a silent connection is asked whether it lives."""

Hear = Callable[[str], None]
"""Takes a piece of news; one that asks for a job to be stopped has :data:`ABORT` in it."""


async def listen(config: ProcrastinateConfig, hear: Hear) -> None:
    """Tell *hear* the news until the connection breaks.

    Raises:
        psycopg.Error: It broke.
    """
    async with _listening(config, hear) as connection:
        while True:
            if not await _has_something(connection.fileno()):
                with anyio.fail_after(STATEMENT_SECONDS, shield=True):
                    await connection.execute("select 1")
            connection.pgconn.consume_input()
            while notification := connection.pgconn.notifies():
                hear(notification.extra.decode(errors="replace"))


@asynccontextmanager
async def _listening(config: ProcrastinateConfig, hear: Hear) -> AsyncGenerator[psycopg.AsyncConnection[Any]]:
    connection = await connect(config, autocommit=True)
    try:
        connection.add_notify_handler(lambda notification: hear(notification.payload))  # what statements meet
        for channel in get_channel_for_queues():
            await connection.execute(SQL("listen {}").format(Identifier(channel)))
        yield connection
    finally:
        await connection.close()


async def _has_something(socket: int) -> bool:
    """Tell whether there is something to read, once there is or nothing came for long."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(socket, readable.set)  # the driver, too, watches it while a statement runs, and only then
    try:
        with anyio.move_on_after(CHECK_SECONDS):
            await readable.wait()
    finally:
        loop.remove_reader(socket)
    return readable.is_set()
