"""Who in this process waits for which waitpoint to end, wherever it is completed. Everything here happens on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs

from sessions_adapters.postgres.connecting import Connection
from sessions_adapters.postgres.listener import Watcher
from sessions_adapters.postgres.values import key_of
from sessions_core.domain.ids import WaitpointId

FIND_ENDED: Final = "select id from waitpoint where id = any($1::text[]) and status <> 'WAITING'"


def waitpoint_key(waitpoint_id: WaitpointId) -> bytes:
    """Return the key under which processes tell each other that a waitpoint has ended."""
    return key_of("waitpoint", waitpoint_id)


@attrs.define(eq=False)
class Waiters(Watcher):
    """Futures by waitpoint."""

    _by_id: dict[WaitpointId, set[asyncio.Future[bool]]] = attrs.field(init=False, factory=dict)
    _ids: dict[bytes, WaitpointId] = attrs.field(init=False, factory=dict)
    _is_over: bool = attrs.field(init=False, default=False)

    @contextmanager
    def expect(self, waitpoint_id: WaitpointId) -> Iterator[asyncio.Future[bool]]:
        """Give a future that is True at the next :meth:`wake` of *waitpoint_id*, False when none will come."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._by_id.setdefault(waitpoint_id, set()).add(future)
        self._ids[waitpoint_key(waitpoint_id)] = waitpoint_id
        if self._is_over:
            future.set_result(False)
        try:
            yield future
        finally:
            self._forget(waitpoint_id, future)

    def wake(self, waitpoint_id: WaitpointId) -> None:
        """Wake everybody who waits for *waitpoint_id*."""
        for future in self._by_id.get(waitpoint_id, ()):
            if not future.done():
                future.set_result(True)

    def hear(self, key: bytes, number: int) -> None:
        del number  # it has ended: there is no more to know
        if key in self._ids:
            self.wake(self._ids[key])

    async def look(self, connection: Connection, *, anew: bool) -> None:
        del anew  # there is but one way to look
        if self._by_id:
            for row in await connection.fetch(FIND_ENDED, list(self._by_id)):
                self.wake(row["id"])

    def lose(self) -> None:
        """Go on waiting: the next look finds what has ended meanwhile."""

    def end(self) -> None:
        """Let nobody wait any longer."""
        self._is_over = True
        for futures in self._by_id.values():
            for future in futures:
                if not future.done():
                    future.set_result(False)

    def _forget(self, waitpoint_id: WaitpointId, future: asyncio.Future[bool]) -> None:
        futures = self._by_id[waitpoint_id]
        futures.discard(future)
        if not futures:
            del self._by_id[waitpoint_id]
            del self._ids[waitpoint_key(waitpoint_id)]
