"""A clock for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs

from sessions_core.ports.clock import Clock


@attrs.define
class ManualClock(Clock):
    """A clock that stands still until it is told to advance."""

    moment: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """Return the moment it stands at."""
        return self.moment

    def advance(self, by: timedelta) -> None:
        """Move the moment forward."""
        self.moment += by
