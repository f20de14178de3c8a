"""Followers that also hear of what other processes have committed."""

from __future__ import annotations

from typing import Final

import attrs

from sessions_adapters.postgres.connecting import Connection
from sessions_adapters.postgres.listener import Watcher
from sessions_adapters.shared.followers import Followers

FIND_NEXT_SEQS: Final = "select id, next_seq from channel where id = any($1::bytea[])"


@attrs.define(eq=False)
class WatchingFollowers(Followers[bytes], Watcher):
    """All followers of this process, by the key of their channel.

    A hint that never came is made up for by the slow look at the heads of all channels that are followed here.
    """

    def hear(self, key: bytes, number: int) -> None:
        self.hint(key, number)

    async def look(self, connection: Connection, *, anew: bool) -> None:
        del anew  # there is but one way to look
        if self._by_channel:
            for row in await connection.fetch(FIND_NEXT_SEQS, list(self._by_channel)):
                self.hint(row["id"], row["next_seq"])

    def lose(self) -> None:
        """Go on: whoever reads finds out by itself whether the database answers."""
