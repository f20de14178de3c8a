"""Which channels somebody may be waiting on, as far as this process has been told."""

from __future__ import annotations

from typing import Final

import attrs

from sessions_adapters.postgres.connecting import Connection
from sessions_adapters.postgres.listener import Watcher

FIND_WAITED: Final = "select distinct channel from wait_member limit $1"
MOST_KNOWN: Final = 100_000
MARK: Final = b"registered "


@attrs.define(eq=False)
class Waits(Watcher):
    """A hint that saves a question to the database with every append, since hardly any channel is waited on.

    Only while notifications come in, and all is known, is "not heard of" worth anything.
    """

    _known: set[bytes] = attrs.field(init=False, factory=set)
    _is_complete: bool = attrs.field(init=False, default=False)

    def may_have(self, channel: bytes) -> bool:
        """Tell whether somebody may be waiting on *channel*."""
        return channel in self._known or not self._is_complete

    def add(self, channel: bytes) -> None:
        """Take note that somebody waits on *channel*."""
        if len(self._known) < MOST_KNOWN:
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
        if anew:
            rows = await connection.fetch(FIND_WAITED, MOST_KNOWN)
            self._is_complete = len(rows) < MOST_KNOWN
            for row in rows:
                self.add(row["channel"])

    def lose(self) -> None:
        self._is_complete = False
