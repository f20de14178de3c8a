"""Connections of a database that wait or are ended, and what callers are told of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import anyio
import asyncpg
import pytest

from sessions_core.errors import UnavailableError

Admin: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
SOON: Final = 20.0
BUSY: Final = """
    select pid from pg_stat_activity
    where datname = current_database() and application_name = 'sessions' and state = 'active' and wait_event_type = 'Lock'
"""
END_BUSY: Final = BUSY.replace("select pid", "select pg_terminate_backend(pid)")
IN_TRANSACTION: Final = """
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'sessions' and state like 'idle in transaction%'
"""
END_ALL: Final = """
    select count(pg_terminate_backend(pid)) from pg_stat_activity
    where datname = current_database() and application_name = 'sessions'
"""


async def until_somebody_waits(admin: Admin, count: int = 1) -> None:
    """Wait until so many statements wait for a lock."""
    with anyio.fail_after(SOON):
        while len(await admin.fetch(BUSY)) < count:
            await admin.execute("select pg_stat_clear_snapshot()")


async def failure_of(call: Callable[[], Awaitable[object]]) -> UnavailableError:
    """Make a call that has to fail, and return how it did."""
    with pytest.raises(UnavailableError) as caught:
        await call()
    return caught.value


def check_words(error: UnavailableError) -> None:
    """Check that the caller's message is ours, and the driver's exception its cause."""
    assert "try again" in error.message
    assert "terminat" not in error.message
    assert error.__cause__ is not None
