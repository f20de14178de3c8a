"""Endless readings of channels. Everything here happens on the event loop.

How this works
--------------
A follower knows two numbers: the seq it *expects* next, and how far the channel is *known* to reach. What this process
commits is offered to the channel's followers: one that expects just that, and has read everything before, gets it into
its buffer without a read; any other only learns that there is more. What other processes commit is only a hint that
raises *known*. When its buffer is empty and more is known than it expects, it reads from the store. So a slow follower
costs a bounded buffer, and a wake-up cannot be lost: what is committed during a read raises *known*, and the next look
sees it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

import attrs

from sessions_core.domain.channel import Batch, Record
from sessions_core.errors import ChannelUnavailableError

Key = TypeVar("Key")
Read = Callable[[int], Awaitable[Batch]]

_RECORD_BYTES: Final = 200
"""What a small record weighs in memory, beside its body."""


@attrs.define(eq=False)
class Follower(AsyncIterator[Batch]):
    """One reading of one channel."""

    _read: Read
    _expected: int
    _limit: int
    _known: int = attrs.field(init=False)
    _is_reading: bool = attrs.field(init=False, default=False)
    _is_lost: bool = attrs.field(init=False, default=False)
    _is_closed: bool = attrs.field(init=False, default=False)
    _buffer: list[tuple[Batch, int]] = attrs.field(init=False, factory=list)  # an empty deque weighs 760 bytes
    _weight: int = attrs.field(init=False, default=0)
    _bell: asyncio.Future[None] | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._suspect()

    def offer(self, batch: Batch, weight: int) -> None:
        """Take note of what was just committed here."""
        if self._is_next(batch) and self._weight < self._limit:
            self._buffer.append((batch, weight))
            self._weight += weight
            self._expected = batch.next_seq
        self.hint(batch.next_seq)

    def hint(self, next_seq: int) -> None:
        """Take note of how far the channel reaches."""
        if next_seq > self._known:
            self._known = next_seq
            self._ring()

    def lose(self) -> None:
        """Let the reader know that there will be no more."""
        self._is_lost = True
        self._ring()

    def close(self) -> None:
        """End the iteration."""
        self._is_closed = True
        self._buffer.clear()
        self._ring()

    async def __anext__(self) -> Batch:
        while not self._is_closed:
            if self._buffer:
                batch, weight = self._buffer.pop(0)
                self._weight -= weight
                return batch
            if self._is_lost:
                raise ChannelUnavailableError
            if self._expected < self._known:
                batch = await self._read_on()
                if batch.records:
                    return batch
            else:
                await self._wait()
        raise StopAsyncIteration

    def _is_next(self, batch: Batch) -> bool:
        has_read_all_before = not self._is_reading and self._expected >= self._known
        return has_read_all_before and batch.records[0].seq == self._expected

    def _suspect(self) -> None:
        """Assume that there is more, so that the store is asked."""
        self._known = self._expected + 1

    async def _read_on(self) -> Batch:
        self._known, self._is_reading = 0, True
        try:
            batch = await self._read(self._expected)
        except BaseException:
            self._suspect()
            raise
        finally:
            self._is_reading = False
        self._known = max(self._known, batch.next_seq)
        # Nothing there up to the tail means that it was trimmed.
        after = batch.records[-1].seq + 1 if batch.records else batch.next_seq
        self._expected = max(self._expected, after)
        return batch

    async def _wait(self) -> None:
        self._bell = asyncio.get_running_loop().create_future()
        try:
            await self._bell
        finally:
            self._bell = None

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)


@attrs.define(eq=False)
class Followers(Generic[Key]):
    """All followers of this process, by what the store calls their channel."""

    _limit: int
    _by_channel: dict[Key, set[Follower]] = attrs.field(init=False, factory=dict)
    _is_over: bool = attrs.field(init=False, default=False)

    @asynccontextmanager
    async def open(self, channel: Key, start: int, read: Read) -> AsyncIterator[Follower]:
        """Follow *channel* from *start* on, and with *read* where that is needed."""
        follower = Follower(read, start, self._limit)
        self._by_channel.setdefault(channel, set()).add(follower)
        if self._is_over:
            follower.lose()
        try:
            yield follower
        finally:
            follower.close()
            self._remove(channel, follower)

    def is_followed(self, channel: Key) -> bool:
        """Tell whether anybody here follows *channel*."""
        return channel in self._by_channel

    def publish(self, stored: Mapping[Key, Sequence[Record]]) -> None:
        """Offer what a commit has stored: one batch for each channel, shared by its followers."""
        for channel, records in stored.items():
            followers = self._by_channel.get(channel)
            if followers and records:
                batch = Batch(tuple(records), records[-1].seq + 1, records[-1].timestamp)
                weight = sum(_RECORD_BYTES + len(record.body) for record in records)
                for follower in followers:
                    follower.offer(batch, weight)

    def hint(self, channel: Key, next_seq: int) -> None:
        """Take note of how far *channel* reaches."""
        for follower in self._by_channel.get(channel, ()):
            follower.hint(next_seq)

    def end(self) -> None:
        """Let all readers know that there will be no more."""
        self._is_over = True
        for followers in self._by_channel.values():
            for follower in followers:
                follower.lose()

    def _remove(self, channel: Key, follower: Follower) -> None:
        followers = self._by_channel[channel]
        followers.discard(follower)
        if not followers:
            del self._by_channel[channel]
