"""Committed changes in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import anyio
import attrs
from anyio.lowlevel import checkpoint

from sessions_adapters.memory.tables import Tables
from sessions_core.domain.session import Session
from sessions_core.errors import InvalidError, StoreInUseError, StoreUnavailableError
from sessions_core.ports.change_feed import (
    Change,
    ChangeBatch,
    ChangeFeed,
    ChangeKind,
    ChangeStream,
    UnreadableChange,
)
from sessions_core.ports.clock import Clock
from sessions_core.ports.session_index import IndexRow

Found = Change | UnreadableChange


@attrs.frozen(kw_only=True)
class _Transaction:
    """What was committed together.

    Attributes:
        before: The position of the transaction before.
    """

    found: Sequence[Found]
    before: int
    position: int
    committed_at: datetime


@attrs.define(eq=False)
class InMemoryChangeFeed(ChangeFeed):
    """Streams what is committed to it, and what is saved in the tables it watches.

    Attributes:
        batch_size: Of a transaction with more changes than this, so many come at a time.
    """

    _clock: Clock
    batch_size: int = 1000
    _log: deque[_Transaction] = attrs.field(init=False, factory=deque, repr=False)
    _forgotten: int = attrs.field(init=False, default=0)
    _position: int = attrs.field(init=False, default=0)
    _is_open: bool = attrs.field(init=False, default=False)
    _news: anyio.Event = attrs.field(init=False, factory=anyio.Event)

    def watch(self, tables: Tables) -> None:
        """Take every row that is saved from now on for a transaction of its own."""

        def note(session: Session, is_new: bool) -> None:
            kind = ChangeKind.INSERT if is_new else ChangeKind.UPDATE
            self.commit(lambda version: [Change(kind, IndexRow(session, version))])

        tables.on_save = note

    def commit(self, make: Callable[[int], Sequence[Found]]) -> int:
        """Commit the changes that *make* returns for their version, which is returned. There must be some."""
        before, self._position = self._position, self._position + 1
        self._log.append(
            _Transaction(
                found=make(self._position), before=before, position=self._position, committed_at=self._clock.now()
            )
        )
        news, self._news = self._news, anyio.Event()
        news.set()
        return self._position

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[InMemoryChangeStream]:
        await checkpoint()
        if self._is_open:
            raise StoreInUseError("Somebody else streams the changes")
        self._is_open = True
        stream = InMemoryChangeStream(self, self._forgotten)
        try:
            yield stream
        finally:
            stream.end()
            self._is_open = False

    async def transaction(self, number: int) -> _Transaction:
        """Wait for the transaction with *number*, counted from 0 on."""
        await checkpoint()
        while number - self._forgotten >= len(self._log):
            await self._news.wait()
        return self._log[number - self._forgotten]

    def forget(self, position: int) -> None:
        """Forget everything up to *position*."""
        while self._log and self._log[0].position <= position:
            self._log.popleft()
            self._forgotten += 1


@attrs.define(eq=False)
class InMemoryChangeStream(ChangeStream):
    """A place in the feed: the number of a transaction, and how many of its changes have been given."""

    _feed: InMemoryChangeFeed
    _number: int
    _given: int = attrs.field(init=False, default=0)
    _handed: int = attrs.field(init=False, default=0)
    _is_over: bool = attrs.field(init=False, default=False)

    def __aiter__(self) -> InMemoryChangeStream:
        return self

    async def __anext__(self) -> ChangeBatch:
        transaction = await self._feed.transaction(self._number)
        if self._is_over:
            raise StoreUnavailableError
        first, last = self._given, self._given + self._feed.batch_size
        is_end = last >= len(transaction.found)
        self._number, self._given = (self._number + 1, 0) if is_end else (self._number, last)
        self._handed = transaction.position if is_end else transaction.before
        found = transaction.found[first:last]
        return ChangeBatch(
            changes=tuple([change for change in found if isinstance(change, Change)]),
            unreadable=tuple([change for change in found if isinstance(change, UnreadableChange)]),
            position=self._handed,
            committed_at=transaction.committed_at,
        )

    def acknowledge(self, position: int) -> None:
        if position > self._handed:
            raise InvalidError("position", "is higher than that of any batch of this stream")
        if not self._is_over:
            self._feed.forget(position)

    def end(self) -> None:
        """Give nothing more."""
        self._is_over = True
