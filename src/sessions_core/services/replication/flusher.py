"""Decides when rows are written, and lets a few batches of them be written at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

import anyio
import attrs

from sessions_core.domain.events import PositionAcknowledged
from sessions_core.ports.change_feed import ChangeBatch, ChangeStream
from sessions_core.ports.observer import Observer
from sessions_core.services.replication.config import ReplicatorConfig
from sessions_core.services.replication.delivery import Delivery
from sessions_core.services.replication.pending import FlushBatch, Pending


@attrs.define(eq=False)
class Flusher:
    """Writes what one stream brings, and acknowledges it while the stream is open.

    A batch is due when it is large enough, or its first row has waited long enough. If as many batches as may be are under
    way by then, rows gather until one of them lands, and the next batch has all of them. So batches grow with the load.

    Attributes:
        has_acknowledged: Something has been.
    """

    _delivery: Delivery
    _observer: Observer
    _config: ReplicatorConfig
    has_acknowledged: bool = attrs.field(init=False, default=False)
    _pending: Pending = attrs.field(init=False, factory=Pending)
    _stream: ChangeStream | None = attrs.field(init=False, default=None)
    _acknowledged: int = attrs.field(init=False, default=0)
    _in_a_hurry: bool = attrs.field(init=False, default=False)
    _news: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _landing: anyio.Event = attrs.field(init=False, factory=anyio.Event)

    async def run(self) -> None:
        """Write what is added, until cancelled."""
        slots = anyio.Semaphore(self._config.flush_concurrency)
        async with anyio.create_task_group() as tasks:
            while True:
                await self._until_due()
                await slots.acquire()
                tasks.start_soon(self._flush, self._pending.take(), slots.release)

    def attach(self, stream: ChangeStream | None) -> None:
        """Acknowledge on *stream*, from which all that is added comes; on none once it is closed."""
        self._stream = stream

    def add(self, batch: ChangeBatch) -> None:
        """Take the next batch of the stream."""
        was_empty = not self._pending.waiting
        self._pending.add(batch, anyio.current_time())
        self._acknowledge()
        if was_empty or self._pending.waiting >= self._config.flush_batch_size:
            self._news.set()  # else nothing changes for who waits

    async def make_room(self, patience: timedelta) -> bool:
        """Wait until more rows may be held; give up if for as long as *patience* no batch has landed.

        Returns:
            Whether there is room.
        """
        while self._is_full():
            with anyio.move_on_after(patience.total_seconds()) as scope:
                await self._landing.wait()
            if scope.cancelled_caught:
                return False
        return True

    def _is_full(self) -> bool:
        pending, config = self._pending, self._config
        return pending.held >= config.held_rows or pending.held_bytes >= config.held_bytes

    async def drain(self) -> None:
        """Wait until everything that was added is written; nothing waits for more rows from here on."""
        self._in_a_hurry = True
        self._news.set()
        while self._pending.held:
            await self._landing.wait()

    async def _until_due(self) -> None:
        while (rest := self._time_left()) > 0:
            with anyio.move_on_after(rest):
                await self._news.wait()
            self._news = anyio.Event()

    def _time_left(self) -> float:
        """Return after how many seconds the next batch is due if no more rows come."""
        since = self._pending.waiting_since
        if since is None:
            return math.inf
        if self._in_a_hurry or self._pending.waiting >= self._config.flush_batch_size:
            return 0.0
        return since + self._config.flush_interval.total_seconds() - anyio.current_time()

    async def _flush(self, batch: FlushBatch, leave: Callable[[], None]) -> None:
        await self._delivery.deliver(batch.changes, batch.letters, since=batch.since)
        leave()
        self._pending.land(batch)
        self._acknowledge()
        self._news.set()  # what waited for this batch to land can be taken
        landing, self._landing = self._landing, anyio.Event()
        landing.set()

    def _acknowledge(self) -> None:
        safe = self._pending.safe
        if self._stream is not None and safe > self._acknowledged:
            self._stream.acknowledge(safe)
            self._acknowledged, self.has_acknowledged = safe, True
            self._observer(PositionAcknowledged(position=safe))
