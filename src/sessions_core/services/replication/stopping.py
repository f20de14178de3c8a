"""Asking for an end that some steps may follow at once and others not."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import anyio
import attrs


@attrs.define(eq=False)
class Stop:
    """Is asked for once. Cancels what only waits, and leaves alone what has begun to work."""

    is_asked_for: bool = attrs.field(init=False, default=False)
    _waiting: set[anyio.CancelScope] = attrs.field(init=False, factory=set)

    def ask(self) -> None:
        """Cancel every block that may be interrupted, now and from now on."""
        self.is_asked_for = True
        for scope in tuple(self._waiting):
            scope.cancel()

    @contextmanager
    def interrupting(self) -> Generator[anyio.CancelScope]:
        """Cancel the block when a stop is asked for, or at once if it was, unless its scope is spared in time."""
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                if self.is_asked_for:
                    scope.cancel()
                yield scope
            finally:
                self._waiting.discard(scope)

    def spare(self, scope: anyio.CancelScope) -> None:
        """Let the block of *scope* go on to its end from here on."""
        self._waiting.discard(scope)
