"""Hearing what happens to jobs, on one connection."""

from __future__ import annotations

import json
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


async def listen(config: ProcrastinateConfig, hear: Callable[[str, int], None]) -> None:
    """Tell *hear* the kind of each piece of news, and the job, until the connection breaks.

    Raises:
        psycopg.Error: It broke.
    """
    async with _listening(config) as connection:
        while True:
            async for notification in connection.notifies(timeout=CHECK_SECONDS):
                news: dict[str, Any] = json.loads(notification.payload)
                hear(news["type"], news["job_id"])
            with anyio.fail_after(STATEMENT_SECONDS, shield=True):
                await connection.execute("select 1")


@asynccontextmanager
async def _listening(config: ProcrastinateConfig) -> AsyncGenerator[psycopg.AsyncConnection[Any]]:
    connection = await connect(config, autocommit=True)
    try:
        for channel in get_channel_for_queues():
            await connection.execute(SQL("listen {}").format(Identifier(channel)))
        yield connection
    finally:
        await connection.close()
