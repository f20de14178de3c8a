"""What is held of bodies and frames that have not come whole: a limit for all requests together.

Each request has limits of its own, but there may be thousands of them, and a client may take its time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs

from sessions_server.data_plane.failures import RATE_LIMITED, S2Error

MOST: Final = 134_217_728
FREE: Final = 65_536
"""So much of each request does not count and is never refused: what chats send is smaller."""


@attrs.define(eq=False)
class Share:
    """What is held for one request."""

    _holding: Holding
    _counted: int = attrs.field(init=False, default=0)

    def hold(self, size: int) -> None:
        """Say that *size* bytes are held now.

        Raises:
            S2Error: That is too much, with what is held for all others.
        """
        counted = max(size - FREE, 0)
        self._holding.change(counted - self._counted)
        self._counted = counted


@attrs.define(eq=False)
class Holding:
    """Counts what is held.

    Attributes:
        most: So many bytes at a time, beside those that do not count.
    """

    most: int = MOST
    _held: int = attrs.field(init=False, default=0)

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Give a request its share inside the block."""
        share = Share(self)
        try:
            yield share
        finally:
            share.hold(0)

    def change(self, size: int) -> None:
        """Count *size* bytes more, or less."""
        if size > 0 and self._held + size > self.most:
            raise S2Error.of(RATE_LIMITED, "Too much is half there, of all requests together; send it again later")
        self._held += size
