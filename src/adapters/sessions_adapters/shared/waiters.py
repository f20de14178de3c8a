"""Who in this process waits for which waitpoint to end. Everything here happens on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from sessions_core.domain.ids import WaitpointId


@attrs.define(eq=False)
class Waiters:
    """Futures by waitpoint."""

    _by_id: dict[WaitpointId, set[asyncio.Future[bool]]] = attrs.field(init=False, factory=dict)
    _is_over: bool = attrs.field(init=False, default=False)

    @contextmanager
    def expect(self, waitpoint_id: WaitpointId) -> Iterator[asyncio.Future[bool]]:
        """Give a future that is True at the next :meth:`wake` of *waitpoint_id*, False when none will come."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        futures = self._by_id.setdefault(waitpoint_id, set())
        futures.add(future)
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
