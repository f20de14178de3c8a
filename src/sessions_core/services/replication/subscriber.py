"""The leader's work: one stream after the other, each read and written to its end.

How this works
--------------
A stream ends because somebody asked for it, because it broke, or because it was closed here: nothing could be written for
long, and a store that is to stop waits for whoever streams from it. Whichever it is, what has been read is written before
the next stream is opened. So no row is held twice, and what is read again, because it could not be acknowledged any more,
is no more than what is held at once. Only a stop waits with closing the stream, so that all of it is acknowledged.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Final

import anyio
import attrs

from sessions_core.domain.events import ChangesRead, ReplicationStreamClosed, ReplicationStreamOpened
from sessions_core.errors import IncompatibleStoreError, SessionsError, StoreInUseError, UnavailableError
from sessions_core.ports.change_feed import ChangeBatch, ChangeFeed, ChangeStream
from sessions_core.ports.clock import Clock
from sessions_core.ports.observer import Observer
from sessions_core.services.replication.backoff import Backoff, doubled
from sessions_core.services.replication.config import ReplicatorConfig
from sessions_core.services.replication.delivery import Delivery
from sessions_core.services.replication.flusher import Flusher
from sessions_core.services.replication.stopping import Stop
from sessions_core.services.replication.telling import reason_of

STALLED: Final = "Nothing could be written for too long"
NO_PAUSE: Final = timedelta()


@attrs.define(kw_only=True, eq=False)
class Subscriber:
    """Streams until it is stopped, and opens a new stream whenever one has ended."""

    feed: ChangeFeed
    delivery: Delivery
    clock: Clock
    observer: Observer
    config: ReplicatorConfig
    stop: Stop
    _failures: int = attrs.field(init=False, default=0)
    _stalls: int = attrs.field(init=False, default=0)

    async def run(self) -> None:
        """Replicate. When it returns after a stop, all that was read is written and acknowledged."""
        while not self.stop.is_asked_for:
            pause = await self._subscribe()
            with self.stop.interrupting():
                await anyio.sleep(pause.total_seconds())

    async def _subscribe(self) -> timedelta:
        """Read one stream, and write all of it. Return how long to wait before the next one."""
        flusher = Flusher(self.delivery, self.observer, self.config)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flusher.run)
            pause = await self._stream(flusher)
            await flusher.drain()
            tasks.cancel_scope.cancel()
            return pause
        raise AssertionError

    async def _stream(self, flusher: Flusher) -> timedelta:
        try:
            with self.stop.interrupting() as opening:
                await self._open(opening, flusher)
        except (UnavailableError, IncompatibleStoreError) as error:
            return self._failed(error)
        return NO_PAUSE

    async def _open(self, opening: anyio.CancelScope, flusher: Flusher) -> None:
        """Open a stream, which a stop may interrupt, and read it."""
        async with self.feed.open() as stream:
            self.stop.spare(opening)
            self._failures = 0
            self.observer(ReplicationStreamOpened())
            has_stalled = await self._read_on(stream, flusher)
        self.observer(ReplicationStreamClosed(error=STALLED if has_stalled else None, pause=None))

    async def _read_on(self, stream: ChangeStream, flusher: Flusher) -> bool:
        """Read until a stop, which ends once all is written; or until nothing can be written, and return True then."""
        flusher.attach(stream)
        has_stalled = False
        try:
            with self.stop.interrupting():
                await self._read(stream, flusher)
                has_stalled = True
            if not has_stalled:
                await flusher.drain()
        finally:
            flusher.attach(None)
        self._stalls = 0 if flusher.has_acknowledged else self._stalls + has_stalled
        return has_stalled

    async def _read(self, stream: ChangeStream, flusher: Flusher) -> None:
        """Read on and on. Return when nothing more can be held, and nothing could be written for too long."""
        # A write that takes longer than a stream may stall would be read again and again: so that becomes longer, too.
        patience = doubled(self.config.stall, self._stalls)
        async for batch in stream:
            flusher.add(batch)
            self._tell(batch)
            if not await flusher.make_room(patience):
                return

    def _tell(self, batch: ChangeBatch) -> None:
        kinds = Counter([change.kind.value for change in batch.changes])
        kinds.update([change.kind.value for change in batch.unreadable])
        lag = max(self.clock.now() - batch.committed_at, timedelta())
        self.observer(ChangesRead(kinds=kinds, unreadable=len(batch.unreadable), lag=lag))

    def _failed(self, error: SessionsError) -> timedelta:
        self._failures += 1
        backoff = Backoff(base=self.config.resubscribe_base_delay, cap=self.config.resubscribe_max_delay)
        is_wrong = isinstance(error, IncompatibleStoreError) and not isinstance(error, StoreInUseError)
        pause = backoff.cap if is_wrong else backoff.pause(self._failures)
        is_lasting = is_wrong or backoff.is_at_cap(self._failures)
        self.observer(ReplicationStreamClosed(error=reason_of(error), pause=pause, is_lasting=is_lasting))
        return pause
