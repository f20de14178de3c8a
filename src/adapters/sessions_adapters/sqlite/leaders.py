"""Leadership within the process that owns the data."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import attrs


@attrs.define(eq=False)
class Leaders:
    """One lock per name, and the scopes of those who lead."""

    _locks: defaultdict[str, asyncio.Lock] = attrs.field(init=False, factory=lambda: defaultdict(asyncio.Lock))
    _scopes: set[anyio.CancelScope] = attrs.field(init=False, factory=set)
    _is_lost: bool = attrs.field(init=False, default=False)

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[anyio.CancelScope]:
        """Wait for leadership of *name*, and hold it inside the block."""
        async with self._locks[name]:
            if self._is_lost:  # nobody leads any more
                await anyio.sleep_forever()
            scope = anyio.CancelScope()
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def lose(self) -> None:
        """Take all leadership away, at once."""
        self._is_lost = True
        for scope in tuple(self._scopes):
            scope.cancel()
