"""A registry of waits that may fail without failing anybody.

The registry is a hint for speed: what it forgets, the sweep finds by comparing waitpoints with their channels' tails. So
its failures are told to the observer and go no further: an append that is stored does not become an error because nobody
could be woken at once, and a wait is created, completed and expired without it.

A system that does not answer at all would still cost every append its timeout. Therefore after a failure the registry is
left alone for a moment, and then a single call tries it again while the others still pass it by.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

import anyio
import attrs

from sessions_core.domain.channel import Channel
from sessions_core.domain.events import SystemFailed
from sessions_core.domain.ids import WaitpointId
from sessions_core.errors import UnavailableError
from sessions_core.ports.observer import Observer
from sessions_core.ports.waitpoint_store import WaitRegistry

T = TypeVar("T")


@attrs.define(eq=False)
class TolerantWaitRegistry(WaitRegistry):
    """Does what *inner* does while it can be reached, and nothing while it cannot.

    Attributes:
        pause: How long *inner* is left alone after a failure.
    """

    inner: WaitRegistry
    observer: Observer
    pause: timedelta = timedelta(seconds=1)
    _is_failing: bool = attrs.field(init=False, default=False)
    _next_try: float = attrs.field(init=False, default=0.0)

    async def register(self, channel: Channel, waitpoint_id: WaitpointId, keep: timedelta) -> None:
        await self._try("register wait", partial(self.inner.register, channel, waitpoint_id, keep), None)

    async def drain(self, channel: Channel) -> Sequence[WaitpointId]:
        return await self._try("drain waits", partial(self.inner.drain, channel), ())

    async def unregister(self, channel: Channel, waitpoint_id: WaitpointId) -> None:
        await self._try("unregister wait", partial(self.inner.unregister, channel, waitpoint_id), None)

    async def _try(self, step: str, call: Callable[[], Awaitable[T]], otherwise: T) -> T:
        if self._is_failing and not self._is_time():
            return otherwise
        try:
            answer = await call()
        except UnavailableError as error:
            self._is_failing = True
            self._postpone()
            self.observer(SystemFailed(step=step, error=str(error)))
            return otherwise
        self._is_failing = False
        return answer

    def _is_time(self) -> bool:
        """Tell whether this call is the one that tries again; if so, the next such call comes a pause later."""
        if anyio.current_time() < self._next_try:
            return False
        self._postpone()
        return True

    def _postpone(self) -> None:
        self._next_try = anyio.current_time() + self.pause.total_seconds()
