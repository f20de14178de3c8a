"""Waiters that also hear of waitpoints that ended in other processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs

from sessions_adapters.postgres.connecting import Connection
from sessions_adapters.postgres.listener import Watcher
from sessions_adapters.postgres.values import bindable, key_of
from sessions_adapters.shared.waiters import Waiters
from sessions_core.domain.ids import WaitpointId

FIND_ENDED: Final = "select id from waitpoint where id = any($1::text[]) and status <> 'WAITING'"


def waitpoint_key(waitpoint_id: WaitpointId) -> bytes:
    """Return the key under which processes tell each other that a waitpoint has ended."""
    return key_of("waitpoint", waitpoint_id)


@attrs.define(eq=False)
class WatchingWaiters(Waiters, Watcher):
    """Futures by waitpoint, wherever it is completed."""

    _ids: dict[bytes, WaitpointId] = attrs.field(init=False, factory=dict)

    @contextmanager
    def expect(self, waitpoint_id: WaitpointId) -> Iterator[asyncio.Future[bool]]:
        self._ids[waitpoint_key(waitpoint_id)] = waitpoint_id
        with super().expect(waitpoint_id) as future:
            yield future

    def hear(self, key: bytes, number: int) -> None:
        del number  # it has ended: there is no more to know
        if key in self._ids:
            self.wake(self._ids[key])

    async def look(self, connection: Connection, *, anew: bool) -> None:
        del anew  # there is but one way to look
        if self._by_id:
            for row in await connection.fetch(FIND_ENDED, list(map(bindable, self._by_id))):
                self.wake(row["id"])

    def lose(self) -> None:
        """Go on waiting: the next look finds what has ended meanwhile."""

    def _forget(self, waitpoint_id: WaitpointId, future: asyncio.Future[bool]) -> None:
        super()._forget(waitpoint_id, future)
        if waitpoint_id not in self._by_id:
            del self._ids[waitpoint_key(waitpoint_id)]
