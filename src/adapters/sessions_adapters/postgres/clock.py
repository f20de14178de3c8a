"""The database's clock as this process knows it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

from sessions_adapters.postgres.connecting import Connection
from sessions_adapters.postgres.listener import Watcher
from sessions_core.ports.clock import Clock

NOW: Final = "select clock_timestamp()"


@attrs.define(eq=False)
class PostgresClock(Clock, Watcher):
    """Tells the database's time without asking: it was asked a moment ago, and since then a steady clock has run.

    The steady clock of a process does not jump when somebody sets its machine's time. Before the first answer it is this
    machine's time.
    """

    _start: datetime = attrs.field(init=False, factory=lambda: datetime.now(UTC))
    _since: float = attrs.field(init=False, factory=time.monotonic)

    def now(self) -> datetime:
        """Return the current time with zone UTC."""
        return self._start + timedelta(seconds=time.monotonic() - self._since)

    def hear(self, key: bytes, number: int) -> None:
        """Do nothing: a notification says nothing about the time."""

    async def look(self, connection: Connection, *, anew: bool) -> None:
        del anew
        asked = time.monotonic()
        moment: datetime = await connection.fetchval(NOW)
        self._start, self._since = moment, (asked + time.monotonic()) / 2

    def lose(self) -> None:
        """Run on: a steady clock is right for long."""
