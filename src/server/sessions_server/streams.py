"""The open subscriptions of this process, so that they can be ended: when it stops, or when what opened them is taken back."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio
import attrs

from sessions_server.connections.ages import jittered
from sessions_server.observability.logs import logger

RECHECK_SECONDS: Final = 10.0
"""How often the credentials of open subscriptions are looked at again."""


@attrs.define(eq=False)
class Streams:
    """Keeps a cancel scope for every open subscription. One task watches the credentials of all of them.

    Attributes:
        is_draining: The server is about to stop; whoever chooses between servers should choose another.
        is_ending: Subscriptions have been ended, and new ones end at once.
    """

    _is_refused: Callable[[str], Awaitable[bool]]
    _age: float = math.inf
    is_draining: bool = False
    is_ending: bool = False
    _credentials: dict[anyio.CancelScope, str | None] = attrs.field(init=False, factory=dict, repr=False)
    _watch: asyncio.Task[None] | None = attrs.field(init=False, default=None)

    def __len__(self) -> int:
        return len(self._credentials)

    @contextmanager
    def open(self, lifetime: float = math.inf, credential: str | None = None) -> Iterator[anyio.CancelScope]:
        """Run the block until it is done, *lifetime* seconds have passed, *credential* is refused, or the server stops.

        None lasts much longer than a connection may be old, so that proxies and servers can be replaced.
        """
        with anyio.CancelScope(deadline=anyio.current_time() + min(lifetime, jittered(self._age))) as scope:
            self._credentials[scope] = credential
            if self.is_ending:
                scope.cancel()
            elif self._watch is None:
                self._watch = asyncio.create_task(self._end_refused())
            try:
                yield scope
            finally:
                del self._credentials[scope]

    def end(self) -> None:
        """End all subscriptions, cleanly: their readers come back to another process."""
        self.is_draining = self.is_ending = True
        if self._watch is not None:
            self._watch.cancel()
        self._cancel(self._credentials)

    async def _end_refused(self) -> None:
        try:
            while self._credentials:
                await asyncio.sleep(RECHECK_SECONDS)
                for credential in {known for known in self._credentials.values() if known is not None}:
                    await self._end_if_refused(credential)
        finally:
            self._watch = None

    async def _end_if_refused(self, credential: str) -> None:
        try:
            is_refused = await self._is_refused(credential)
        except Exception:  # noqa: BLE001 - whatever it is, it must not keep the others from being looked at
            logger.exception("a credential of open streams cannot be looked at")
            return
        if is_refused:
            self._cancel(scope for scope, opened_by in self._credentials.items() if opened_by == credential)
        await asyncio.sleep(0)  # a thousand of them must not hold up anybody

    @staticmethod
    def _cancel(scopes: Iterable[anyio.CancelScope]) -> None:
        for scope in list(scopes):
            scope.cancel()
