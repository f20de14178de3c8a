"""The open subscriptions of this process, so that they can be ended when it stops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import attrs


@attrs.define(eq=False)
class Streams:
    """Keeps a cancel scope for every open subscription.

    Attributes:
        is_draining: The server is about to stop; whoever chooses between servers should choose another.
        is_ending: Subscriptions have been ended, and new ones end at once.
    """

    is_draining: bool = False
    is_ending: bool = False
    _scopes: set[anyio.CancelScope] = attrs.field(init=False, factory=set)

    def __len__(self) -> int:
        return len(self._scopes)

    @contextmanager
    def open(self, lifetime: float = math.inf) -> Iterator[anyio.CancelScope]:
        """Run the block until it is done, *lifetime* seconds have passed, or the server stops."""
        with anyio.CancelScope(deadline=anyio.current_time() + lifetime) as scope:
            self._scopes.add(scope)
            if self.is_ending:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def end(self) -> None:
        """End all subscriptions, cleanly: their readers come back to another process."""
        self.is_draining = self.is_ending = True
        for scope in list(self._scopes):
            scope.cancel()
