"""When a connection has been silent, or slow, for too long. Only decides; the connection acts."""

from __future__ import annotations

from enum import Enum, auto

import attrs

from sessions_server.connections.ages import jittered
from sessions_server.http2.limits import Http2Limits


class Step(Enum):
    """What is to be done about a connection."""

    NOTHING = auto()
    ASK = auto()
    GIVE_UP = auto()
    REFUSE = auto()
    LET_GO = auto()
    RETIRE = auto()


@attrs.define(eq=False)
class Watch:
    """Knows when a client was heard last, and what is overdue.

    Attributes:
        is_greeted: Its settings have come.
        is_asked: It has been asked whether it is there, and has not answered.
        is_retired: It has been told that it is old enough.
    """

    _limits: Http2Limits
    _now: float
    is_greeted: bool = attrs.field(init=False, default=False)
    is_asked: bool = attrs.field(init=False, default=False)
    is_retired: bool = attrs.field(init=False, default=False)
    _ends_at: float = attrs.field(init=False)
    _heard_at: float = attrs.field(init=False)
    _busy_at: float = attrs.field(init=False)
    _asked_at: float = attrs.field(init=False, default=0.0)
    _headers_at: float | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._heard_at = self._busy_at = self._now
        self._ends_at = self._now + jittered(self._limits.age)

    @property
    def interval(self) -> float:
        """How often to look."""
        limits = self._limits
        return min(limits.headers, limits.quiet, limits.pong, limits.idle, limits.age) / 2

    def hear(self, now: float) -> None:
        """Take note that something has come."""
        self._heard_at = now

    def follow_headers(self, now: float, *, is_in_headers: bool) -> None:
        """Take note of whether a header block is half there."""
        if not is_in_headers:
            self._headers_at = None
        elif self._headers_at is None:
            self._headers_at = now

    def look(self, now: float, *, is_busy: bool) -> Step:
        """Decide what is to be done.

        Args:
            now: The loop's time.
            is_busy: Whether requests are being answered.
        """
        limits = self._limits
        if is_busy:
            self._busy_at = now
        waits_since = self._headers_at if self.is_greeted else self._now
        if waits_since is not None and now - waits_since >= limits.headers:
            return Step.REFUSE
        if self.is_asked:
            return Step.GIVE_UP if now - self._asked_at >= limits.pong else Step.NOTHING
        if now - self._busy_at >= limits.idle:
            return Step.LET_GO
        if now >= self._ends_at and not self.is_retired:
            self.is_retired = True
            return Step.RETIRE
        if now - self._heard_at >= limits.quiet:
            self.is_asked, self._asked_at = True, now
            return Step.ASK
        return Step.NOTHING
