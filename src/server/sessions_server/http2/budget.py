"""What costs a client next to nothing and us some work is limited by what a well-behaved one could ever need.

Each kind of it has a bucket that refills with time; an empty one ends the connection with ``ENHANCE_YOUR_CALM``. The limits
are far above what browsers, Node, curl and the S2 clients do.
"""

from __future__ import annotations

from functools import partial

import attrs
from h2.errors import ErrorCodes

from sessions_server.http2.frames import END_STREAM, Frame, Kind, ViolationError


@attrs.define(eq=False)
class Bucket:
    """So many at once, and so many a second in the long run.

    Attributes:
        what: Of what, in the words of the error.
    """

    what: str
    size: float
    per_second: float
    _left: float = attrs.field(init=False)
    _at: float = attrs.field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self._left = self.size

    def spend(self, now: float) -> None:
        """Take one.

        Raises:
            ViolationError: There is none left.
        """
        self._left = min(self._left + (now - self._at) * self.per_second, self.size) - 1
        self._at = now
        if self._left < 0:
            raise ViolationError(ErrorCodes.ENHANCE_YOUR_CALM, f"too many {self.what}")

    def earn(self, count: float) -> None:
        """Put some back."""
        self._left = min(self._left + count, self.size)


@attrs.define(eq=False)
class Budget:
    """The buckets of one connection.

    Attributes:
        control: Frames that carry nothing for a request: settings, pings, priorities, unknown and empty ones.
        resets: Requests that the client gives up, or that were refused because there were too many.
        late: Frames for requests that are over.
        windows: Window updates. Every frame of data that is sent allows for two.
        dribbles: Pieces of an answer that were made tiny by a tiny window.
    """

    control: Bucket = attrs.field(factory=partial(Bucket, "control frames", 1000, 100))
    resets: Bucket = attrs.field(factory=partial(Bucket, "resets", 1000, 50))
    late: Bucket = attrs.field(factory=partial(Bucket, "frames on ended streams", 5000, 500))
    windows: Bucket = attrs.field(factory=partial(Bucket, "window updates", 2000, 200))
    dribbles: Bucket = attrs.field(factory=partial(Bucket, "tiny windows", 1000, 100))

    def charge(self, frame: Frame, now: float, *, is_late: bool) -> None:
        """Count *frame*.

        Args:
            frame: What has come.
            now: The loop's time.
            is_late: Whether its request is over.

        Raises:
            ViolationError: One too many.
        """
        kind = frame.kind
        if kind in (Kind.DATA, Kind.HEADERS):
            if is_late:
                self.late.spend(now)
            elif kind == Kind.DATA and frame.is_empty and not frame.flags & END_STREAM:
                self.control.spend(now)
        elif kind == Kind.RST_STREAM:
            self.resets.spend(now)
        elif kind == Kind.WINDOW_UPDATE:
            self.windows.spend(now)
        else:
            self.control.spend(now)
