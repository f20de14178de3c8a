"""A registry of waits that may fail without failing anybody.

The registry is a hint for speed: what it forgets, the sweep finds by comparing waitpoints with their channels' tails. So
its failures are told to the observer and go no further: an append that is stored does not become an error because nobody
could be woken at once, and a wait is created, completed and expired without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import attrs

from sessions_core.domain.channel import Channel
from sessions_core.domain.ids import WaitpointId
from sessions_core.ports.observer import Observer
from sessions_core.ports.waitpoint_store import WaitRegistry
from sessions_core.services.tolerance import Tolerance


@attrs.define(eq=False)
class TolerantWaitRegistry(WaitRegistry):
    """Does what *inner* does while it can be reached, and nothing while it cannot."""

    inner: WaitRegistry
    observer: Observer
    _tolerance: Tolerance = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._tolerance = Tolerance(self.observer)

    async def register(self, channel: Channel, waitpoint_id: WaitpointId, keep: timedelta) -> None:
        await self._tolerance.attempt("register wait", None, self.inner.register, channel, waitpoint_id, keep)

    async def drain(self, channel: Channel) -> Sequence[WaitpointId]:
        return await self._tolerance.attempt("drain waits", (), self.inner.drain, channel)

    async def unregister(self, channel: Channel, waitpoint_id: WaitpointId) -> None:
        await self._tolerance.attempt("unregister wait", None, self.inner.unregister, channel, waitpoint_id)
