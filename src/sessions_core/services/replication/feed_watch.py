"""Measures the change feed from time to time, and warns before what the store keeps for it fills a disk."""

from __future__ import annotations

from datetime import timedelta

import anyio
import attrs

from sessions_core.domain.events import FeedMeasured, RetentionExceeded, SystemFailed
from sessions_core.errors import StoreUnavailableError
from sessions_core.ports.dead_letters import DeadLetters
from sessions_core.ports.feed_gauge import FeedGauge
from sessions_core.ports.observer import Observer


@attrs.define(kw_only=True)
class FeedWatch:
    """Tells what it measures; whoever replicates need not be alive for that.

    Attributes:
        interval: Pause between two looks.
        limit_bytes: More than this should not be kept.
        reminder: While it is, that is told so often.
    """

    gauge: FeedGauge
    dead_letters: DeadLetters
    observer: Observer
    limit_bytes: int
    interval: timedelta = timedelta(seconds=5)
    reminder: timedelta = timedelta(minutes=5)
    _warned_at: float | None = attrs.field(init=False, default=None)

    async def run(self) -> None:
        """Look on and on, until cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailableError as error:
                self.observer(SystemFailed(step="measuring of the change feed", error=str(error)))
            await anyio.sleep(self.interval.total_seconds())

    async def look(self) -> None:
        """Look once.

        Raises:
            StoreUnavailableError: No answer.
        """
        measure = await self.gauge.measure()
        if measure is None:
            return
        letters = await self.dead_letters.count()
        self.observer(
            FeedMeasured(lag_bytes=measure.lag_bytes, retained_bytes=measure.retained_bytes, dead_letters=letters)
        )
        self._warn(measure.retained_bytes)

    def _warn(self, retained: int) -> None:
        if retained <= self.limit_bytes:
            self._warned_at = None
        elif self._warned_at is None or anyio.current_time() - self._warned_at >= self.reminder.total_seconds():
            self._warned_at = anyio.current_time()
            self.observer(RetentionExceeded(retained_bytes=retained, limit_bytes=self.limit_bytes))
