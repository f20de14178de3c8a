"""Measures the change feed from time to time, and warns of what nobody who streams from it would notice."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import anyio
import attrs

from sessions_core.domain.events import FeedMeasured, RetentionExceeded, SystemFailed
from sessions_core.errors import StoreUnavailableError
from sessions_core.ports.dead_letters import DeadLetters
from sessions_core.ports.feed_gauge import FeedGauge
from sessions_core.ports.observer import Observer

MEASURING: Final = "measuring of the change feed"
SET_UP: Final = "set-up of the change feed"


@attrs.define
class _Reminder:
    """Says when something that lasts has to be told: at once, and then every so often."""

    every: timedelta
    _told_at: float | None = attrs.field(init=False, default=None)

    def is_due(self, lasts: bool) -> bool:
        now = anyio.current_time()
        if not lasts:
            self._told_at = None
        elif self._told_at is None or now - self._told_at >= self.every.total_seconds():
            self._told_at = now
            return True
        return False


def _reminder(watch: FeedWatch) -> _Reminder:
    return _Reminder(watch.reminder)


@attrs.define(kw_only=True)
class FeedWatch:
    """Tells what it measures; whoever replicates need not be alive for that.

    Attributes:
        interval: Pause between two looks.
        limit_bytes: More than this should not be kept.
        reminder: While it is, or while changes are left out, that is told so often.
        is_failing: At the last look the store gave no answer, or changes were left out.
    """

    gauge: FeedGauge
    dead_letters: DeadLetters
    observer: Observer
    limit_bytes: int
    interval: timedelta = timedelta(seconds=5)
    reminder: timedelta = timedelta(minutes=5)
    is_failing: bool = attrs.field(init=False, default=False)
    _retention: _Reminder = attrs.field(init=False, default=attrs.Factory(_reminder, takes_self=True))
    _omission: _Reminder = attrs.field(init=False, default=attrs.Factory(_reminder, takes_self=True))

    async def run(self) -> None:
        """Look on and on, until cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailableError as error:
                self.is_failing = True
                self.observer(SystemFailed(step=MEASURING, error=str(error)))
            await anyio.sleep(self.interval.total_seconds())

    async def look(self) -> None:
        """Look once.

        Raises:
            StoreUnavailableError: No answer.
        """
        measure = await self.gauge.measure()
        if measure is None:
            self.is_failing = False
            return
        letters = await self.dead_letters.count()
        self.observer(
            FeedMeasured(lag_bytes=measure.lag_bytes, retained_bytes=measure.retained_bytes, dead_letters=letters)
        )
        self._warn_of_retention(measure.retained_bytes)
        self._warn_of_omission(measure.problem)

    def _warn_of_retention(self, retained: int) -> None:
        if self._retention.is_due(retained > self.limit_bytes):
            self.observer(RetentionExceeded(retained_bytes=retained, limit_bytes=self.limit_bytes))

    def _warn_of_omission(self, problem: str | None) -> None:
        self.is_failing = problem is not None
        if self._omission.is_due(self.is_failing):
            self.observer(SystemFailed(step=SET_UP, error=str(problem)))
