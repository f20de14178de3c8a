"""Leadership in Postgres."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final, NoReturn

import anyio
import attrs

from sessions_adapters.postgres.connecting import Connection, connect
from sessions_adapters.postgres.database import PostgresDatabase
from sessions_adapters.postgres.failures import FAILURES
from sessions_adapters.postgres.values import MILLISECOND
from sessions_core.ports.leader_lock import LeaderLock

TRY_LOCK: Final = "select pg_try_advisory_lock(hashtextextended('sessions leader ' || $1 || ' ' || $2, 0))"
ALIVE: Final = "select 1"
LIMIT_SILENCE: Final = "set idle_session_timeout = {milliseconds}"
SILENCE: Final = timedelta(seconds=5)
"""The server ends the connection of a leader that has not asked for this long …"""
MISSED_CHECKS: Final = 5
"""… or for so many times its ``leader_check``, whichever is longer."""
ANSWER_SECONDS: Final = 2.0
"""A leader whose connection does not answer within this time steps down."""
_logger = logging.getLogger("sessions.postgres")
_logger.addHandler(logging.NullHandler())


@attrs.define(eq=False)
class PostgresLeaderLock(LeaderLock):
    """An advisory lock per name, each held by a connection of its own.

    Within a process the candidates of a name queue up, so that only one of them asks the server; it asks again every
    ``leader_check``, also while the server is away. (A call that waits in the server would keep it from cleaning up.)

    A holder's scope is cancelled at once when its connection is closed, and within ``leader_check`` + 2 s when it only
    stops answering. The server lets the lock go when it notices the end of the connection: at once, within about 20 s if
    the machine of the holder has gone without a word, or 5 s after the holder's process has come to stand still.
    """

    _db: PostgresDatabase

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[anyio.CancelScope]:
        async with self._db.leaders.queue(name), AsyncExitStack() as stack:
            connection = await self._lead(stack, name)
            with self._db.leaders.scope() as scope:
                async with self._watched(connection, scope):
                    yield scope

    async def _lead(self, stack: AsyncExitStack, name: str) -> Connection:
        """Return the connection that has the lock, which lives as long as *stack*."""
        while not self._db.leaders.is_over:
            async with AsyncExitStack() as attempt:
                try:
                    connection = await attempt.enter_async_context(connect(self._db.config))
                    await self._limit_silence(connection)
                    if await self._acquire(connection, name):
                        stack.push_async_exit(attempt.pop_all())
                        return connection
                except FAILURES:
                    _logger.warning("the server does not answer; leadership is tried again", exc_info=True)
            await self._pause()
        return await _never()

    async def _limit_silence(self, connection: Connection) -> None:
        """Let *connection* end with its process standing still: its kernel goes on answering for it."""
        longest = max(SILENCE, MISSED_CHECKS * self._db.config.leader_check)
        await connection.execute(LIMIT_SILENCE.format(milliseconds=longest // MILLISECOND))

    async def _acquire(self, connection: Connection, name: str) -> bool:
        """Wait for the lock; tell whether it came before the end of everything."""
        while not self._db.leaders.is_over:
            if await connection.fetchval(TRY_LOCK, self._db.config.schema, name):
                return True
            await self._pause()
        return False

    @asynccontextmanager
    async def _watched(self, connection: Connection, scope: anyio.CancelScope) -> AsyncIterator[None]:
        """Cancel *scope* if *connection* breaks or does not answer any more inside the block."""
        loop = asyncio.get_running_loop()

        def step_down(_: object) -> None:
            loop.call_soon(scope.cancel)

        connection.add_termination_listener(step_down)
        watch = loop.create_task(self._watch(connection, scope))
        try:
            yield
        finally:
            connection.remove_termination_listener(step_down)
            watch.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait((watch,))

    async def _watch(self, connection: Connection, scope: anyio.CancelScope) -> None:
        """Cancel *scope* when *connection* does not answer any more."""
        try:
            while True:
                await self._pause()
                await connection.fetchval(ALIVE, timeout=ANSWER_SECONDS)
        except FAILURES:
            _logger.warning("the connection that leads does not answer; stepping down", exc_info=True)
            scope.cancel()

    async def _pause(self) -> None:
        await asyncio.sleep(self._db.config.leader_check.total_seconds())


async def _never() -> NoReturn:
    await anyio.sleep_forever()
    raise AssertionError
