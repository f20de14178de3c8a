"""Hearing what other processes have committed, and telling them, on one connection that is opened anew whenever it breaks.

Notifications are hints: they may be lost with a connection, or never be sent by a process that died. So every *watcher*
is also asked to look for itself, over the same connection: when it has been opened, and then at a slow pace. That also
tells whether the connection still lives.

Our own news go over the same connection: the server then need not wake another one of ours to say what we know.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final, Protocol

import asyncpg
import attrs

from sessions_adapters.postgres.announcer import decode
from sessions_adapters.postgres.config import PostgresConfig
from sessions_adapters.postgres.connecting import Connection, connect
from sessions_adapters.postgres.failures import FAILURES

# Nobody waits until one is on the disk: one that is lost is found by the others' slow look.
NOTIFY: Final = """
    select set_config('synchronous_commit', 'off', true), pg_notify($1, told) from unnest($2::text[]) as told
"""
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0
_logger = logging.getLogger("sessions.postgres")
_logger.addHandler(logging.NullHandler())


class Watcher(Protocol):
    """Somebody who wants to know what others have committed."""

    __slots__ = ()

    @abstractmethod
    def hear(self, key: bytes, number: int) -> None:
        """Take a hint: *key* has come to *number*."""

    @abstractmethod
    async def look(self, connection: Connection, *, anew: bool) -> None:
        """Find out what may not have been told.

        Args:
            connection: To ask with.
            anew: Whether notifications may have been lost since the last time, because the connection was opened anew.
        """

    @abstractmethod
    def lose(self) -> None:
        """Take note that nothing will be told until the next look."""


@attrs.define(eq=False)
class Listener:
    """Owns the connection that listens."""

    _config: PostgresConfig
    _topic: str
    _own: str
    _watchers: tuple[Watcher, ...]
    _gone: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)
    _connection: Connection | None = attrs.field(init=False, default=None)
    _is_open: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)
    _turn: asyncio.Lock = attrs.field(init=False, factory=asyncio.Lock)

    async def run(self) -> None:
        """Listen for ever."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with connect(self._config) as connection:
                    await self._start(connection)
                    pause = _FIRST_PAUSE_SECONDS
                    self._connection = connection
                    self._is_open.set()
                    await self._poll(connection)
            except FAILURES:
                _logger.warning("the connection that listens broke; it is opened anew", exc_info=True)
            finally:
                self._connection = None
                self._is_open.clear()
                for watcher in self._watchers:
                    watcher.lose()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def notify(self, payloads: Sequence[str]) -> None:
        """Send notifications, once there is a connection.

        Raises:
            TimeoutError: There is none for long.
            asyncpg.PostgresError: Or any other error of the driver.
        """
        async with asyncio.timeout(self._config.connect_timeout.total_seconds()):
            await self._is_open.wait()
        async with self._turn:
            if self._connection is None:
                raise asyncpg.ConnectionDoesNotExistError("the connection that listens was lost just now")
            await self._connection.execute(NOTIFY, self._topic, payloads)

    async def _start(self, connection: Connection) -> None:
        self._gone = asyncio.Event()
        connection.add_termination_listener(self._note_the_end)
        await connection.add_listener(self._topic, self._hear)
        await self._look(connection, anew=True)

    async def _poll(self, connection: Connection) -> None:
        """Let everybody look now and then, until the connection is gone."""
        interval = self._config.poll_interval.total_seconds()
        while not self._gone.is_set():
            try:
                async with asyncio.timeout(interval):
                    await self._gone.wait()
            except TimeoutError:
                await self._look(connection, anew=False)

    async def _look(self, connection: Connection, *, anew: bool) -> None:
        async with self._turn:
            for watcher in self._watchers:
                await watcher.look(connection, anew=anew)

    def _note_the_end(self, _: Any) -> None:
        self._gone.set()

    def _hear(self, _: Any, __: int, ___: str, payload: Any) -> None:
        if payload.startswith(f"{self._own} "):
            return
        try:
            news = decode(payload)
        except ValueError:
            _logger.warning("a notification cannot be read")
            return
        for key, number in news.items():
            for watcher in self._watchers:
                watcher.hear(key, number)
