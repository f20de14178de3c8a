"""How replication is, by the facts that it tells."""

from __future__ import annotations

from datetime import datetime

import attrs

from sessions_core.domain.events import (
    Event,
    FlushAttemptFailed,
    LeadershipChanged,
    ReplicationStreamClosed,
    ReplicationStreamOpened,
    RowsFlushed,
)
from sessions_core.ports.clock import Clock
from sessions_core.ports.observer import Observer


@attrs.frozen(kw_only=True)
class Health:
    """What a question for readiness wants to know.

    Attributes:
        is_leader: This process is the one that replicates.
        is_streaming: Changes are being read.
        failing_since: Since when the store could not be read, or the index not be written; None while all is well.
    """

    is_leader: bool = False
    is_streaming: bool = False
    failing_since: datetime | None = None


@attrs.define(eq=False)
class HealthWatch(Observer):
    """Listens on the way to *observer*."""

    observer: Observer
    clock: Clock
    is_leader: bool = attrs.field(init=False, default=False)
    is_streaming: bool = attrs.field(init=False, default=False)
    _unread_since: datetime | None = attrs.field(init=False, default=None)
    _unwritten_since: datetime | None = attrs.field(init=False, default=None)

    @property
    def health(self) -> Health:
        """How replication is now."""
        since = min((since for since in (self._unread_since, self._unwritten_since) if since is not None), default=None)
        return Health(is_leader=self.is_leader, is_streaming=self.is_streaming, failing_since=since)

    def __call__(self, event: Event) -> None:
        """Take note of *event*, and hand it on."""
        match event:
            case LeadershipChanged():
                self.is_leader, self.is_streaming = event.is_leader, False
                self._unread_since = self._unwritten_since = None
            case ReplicationStreamOpened():
                self.is_streaming, self._unread_since = True, None
            case ReplicationStreamClosed():
                self.is_streaming = False
                if event.error is not None:
                    self._unread_since = self._unread_since or self.clock.now()
            case FlushAttemptFailed():
                self._unwritten_since = self._unwritten_since or self.clock.now()
            case RowsFlushed():
                self._unwritten_since = None
            case _:
                pass
        self.observer(event)
