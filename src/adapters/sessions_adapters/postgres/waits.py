"""Which channels somebody may be waiting on, as far as this process has been told."""

from __future__ import annotations

import asyncio
from typing import Final

import attrs

from sessions_adapters.postgres.connecting import Connection
from sessions_adapters.postgres.listener import Watcher

FIND_WAITED: Final = "select distinct channel from wait_member limit $1"
MOST_KNOWN: Final = 100_000
REFRESH_SECONDS: Final = 30.0
MARK: Final = b"registered "


@attrs.define(eq=False)
class Waits(Watcher):
    """A hint that saves a question to the database with every append, since hardly any channel is waited on.

    Only while notifications come in, and all is known, is "not heard of" worth anything. Nobody tells that a wait is over
    elsewhere; so the database is asked anew now and then, or what is known would only grow.
    """

    _known: set[bytes] = attrs.field(init=False, factory=set)
    _meanwhile: set[bytes] | None = attrs.field(init=False, default=None)
    _asked_at: float = attrs.field(init=False, default=0.0)
    _is_complete: bool = attrs.field(init=False, default=False)

    def may_have(self, channel: bytes) -> bool:
        """Tell whether somebody may be waiting on *channel*."""
        return channel in self._known or not self._is_complete

    def add(self, channel: bytes) -> None:
        """Take note that somebody waits on *channel*."""
        if self._meanwhile is not None:
            self._meanwhile.add(channel)
        if channel in self._known or len(self._known) < MOST_KNOWN:
            self._known.add(channel)
        else:
            self._is_complete = False

    def remove(self, channel: bytes) -> None:
        """Take note that nobody waits on *channel* any more."""
        self._known.discard(channel)

    def hear(self, key: bytes, number: int) -> None:
        del number
        if key.startswith(MARK):
            self.add(key.removeprefix(MARK))

    async def look(self, connection: Connection, *, anew: bool) -> None:
        if anew or asyncio.get_running_loop().time() - self._asked_at >= REFRESH_SECONDS:
            await self._refresh(connection)

    def lose(self) -> None:
        self._is_complete = False

    async def _refresh(self, connection: Connection) -> None:
        """Ask the database. Its answer may not know of what is added while it is on its way."""
        self._asked_at = asyncio.get_running_loop().time()
        self._meanwhile = meanwhile = set[bytes]()
        try:
            rows = await connection.fetch(FIND_WAITED, MOST_KNOWN)
        finally:
            self._meanwhile = None
        self._known = {row["channel"] for row in rows} | meanwhile
        self._is_complete = len(self._known) < MOST_KNOWN
