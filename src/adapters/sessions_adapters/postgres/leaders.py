"""Who in this process leads, or would like to."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import attrs


@attrs.define(eq=False)
class Leaders:
    """One lock per name, and the scopes of those who lead.

    Attributes:
        is_over: Nobody leads any more.
    """

    _locks: defaultdict[str, asyncio.Lock] = attrs.field(init=False, factory=lambda: defaultdict(asyncio.Lock))
    _scopes: set[anyio.CancelScope] = attrs.field(init=False, factory=set)
    is_over: bool = attrs.field(init=False, default=False)

    @asynccontextmanager
    async def queue(self, name: str) -> AsyncIterator[None]:
        """Wait until nobody else in this process is a candidate for *name*."""
        async with self._locks[name]:
            yield

    @contextmanager
    def scope(self) -> Iterator[anyio.CancelScope]:
        """Give a scope that is cancelled at the end of everything."""
        scope = anyio.CancelScope()
        if self.is_over:
            scope.cancel()
        self._scopes.add(scope)
        try:
            yield scope
        finally:
            self._scopes.discard(scope)

    def end(self) -> None:
        """Take all leadership away, at once."""
        self.is_over = True
        for scope in tuple(self._scopes):
            scope.cancel()
