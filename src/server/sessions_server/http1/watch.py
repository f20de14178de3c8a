"""When a client has been too slow, and when a connection is old enough. Only decides; the connection acts."""

from __future__ import annotations

from enum import Enum, auto

import attrs

from sessions_server.connections.ages import jittered
from sessions_server.http1.limits import Http1Limits


class Step(Enum):
    """What is to be done about a connection."""

    NOTHING = auto()
    REFUSE = auto()
    GIVE_UP = auto()


@attrs.define(eq=False)
class Watch:
    """Knows what a client was given and has not taken, and since when."""

    _limits: Http1Limits
    _made_at: float
    _ends_at: float = attrs.field(init=False)
    _taken: object = attrs.field(init=False, default=None)
    _taken_at: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._taken_at = self._made_at
        self._ends_at = self._made_at + jittered(self._limits.age)

    def is_old(self, now: float) -> bool:
        """Tell whether the connection should take no further request."""
        return now >= self._ends_at

    def look(self, now: float, *, head_since: float | None, backlog: int, taken: object) -> Step:
        """Decide what is to be done.

        Args:
            now: The time.
            head_since: When a head began that is half there, if nobody else is being answered.
            backlog: How many bytes wait for the client.
            taken: Anything that is another thing whenever the client has taken some of them.
        """
        if not backlog or taken != self._taken:
            self._taken, self._taken_at = taken, now
        elif now - self._taken_at >= self._limits.slow_write:
            return Step.GIVE_UP
        is_slow = head_since is not None and now - head_since >= self._limits.head
        return Step.REFUSE if is_slow else Step.NOTHING
