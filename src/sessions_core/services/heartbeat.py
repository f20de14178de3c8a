"""Heartbeats of the runs that this process carries out.

They come from a thread of their own where the run store can be opened on a second event loop: an agent that blocks its
loop is slow, not dead, and must not be replaced while it works.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import anyio
import attrs
from anyio.from_thread import BlockingPortal, start_blocking_portal

from sessions_core.domain.events import SystemFailed
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import Holding
from sessions_core.errors import SessionsError
from sessions_core.ports.observer import Observer

Beat = Callable[[Collection[Holding]], Awaitable[frozenset[RunId]]]
"""``RunStore.beat``, or the same on another event loop."""
OpenBeat = Callable[[], AbstractAsyncContextManager[Beat]]
BACKEND = "asyncio"
"""What the thread's event loop is made of; the adapters need it."""
PATIENCE_BEATS: Final = 3.0
"""A beat without an answer for so many pauses is given up: the connection may be dead, and another one still be in time."""


@attrs.define(kw_only=True)
class Heart:
    """Refreshes heartbeats at a steady pace, and tells which runs have to stop.

    Attributes:
        held: Returns what is carried out now; called in whichever thread beats.
        lose: Told which runs were replaced, begun anew or ended elsewhere; called on the process's own event loop.
    """

    held: Callable[[], Collection[Holding]]
    lose: Callable[[frozenset[RunId]], None]
    observer: Observer
    interval_seconds: float = 2.0

    async def beat_forever(self, beat: Beat) -> None:
        """Beat on this event loop."""
        while True:
            await anyio.sleep(self.interval_seconds)
            try:
                if lost := await self._beat_once(beat):
                    self.lose(lost)
            except SessionsError as error:
                self.observer(SystemFailed(step="heartbeat", error=str(error)))

    @asynccontextmanager
    async def beating_in_thread(self, open_beat: OpenBeat) -> AsyncGenerator[None]:
        """Beat in a thread inside the block."""
        async with BlockingPortal() as home:
            with start_blocking_portal(BACKEND) as thread:
                beating = thread.start_task_soon(self._beat_apart, open_beat, home)
                try:
                    yield
                finally:
                    beating.cancel()

    async def _beat_apart(self, open_beat: OpenBeat, home: BlockingPortal) -> None:
        while True:
            try:
                async with open_beat() as beat:
                    while True:
                        with anyio.fail_after(PATIENCE_BEATS * self.interval_seconds):
                            lost = await self._beat_once(beat)
                        if lost:
                            home.start_task_soon(self.lose, lost)
                        await anyio.sleep(self.interval_seconds)
            except Exception as error:  # noqa: BLE001 - nobody would notice its end, and all runs would count as dead
                told = str(error) if isinstance(error, SessionsError) else type(error).__name__
                home.start_task_soon(self.observer, SystemFailed(step="heartbeat", error=told))
                await anyio.sleep(self.interval_seconds / 2)

    async def _beat_once(self, beat: Beat) -> frozenset[RunId]:
        holdings = tuple(self.held())
        return await beat(holdings) if holdings else frozenset()
