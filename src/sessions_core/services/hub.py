"""The hub: one upstream reading per channel and process, shared by every reader here.

How this works
--------------
For each channel that somebody reads at its end, a *feed* follows the log and keeps the latest batches in a ring of
bounded size. A reader has only a position. At the feed's end it waits; inside the ring it takes the very batch objects
that all others take, so an encoding made for one serves all; before the ring it reads the log by itself. A slow reader
therefore costs nobody anything: it falls out of the ring's past and catches up on its own.

A reader that waits at the end may leave a *push*: a function that takes a new batch on the spot, before anybody is
woken. Two hundred readers then cost two hundred calls, and not as many tasks that go to sleep and wake up again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final, Self

import anyio
import anyio.abc
import attrs

from sessions_core.domain.channel import Batch, Channel, Tail
from sessions_core.errors import ChannelUnavailableError
from sessions_core.ports.channel_log import ChannelLog

RING_BATCHES: Final = 512
RING_BYTES: Final = 4 * 1_048_576
CATCH_UP_RECORDS: Final = 1000

Push = Callable[[Batch], bool]
"""Takes a batch at once, or refuses it by returning False. Must not wait, and must not raise."""


@attrs.define(eq=False)
class _Feed:
    """The recent past of one channel, kept while it has readers."""

    next_seq: int
    timestamp: int
    first_seq: int = attrs.field(init=False)
    # A list, as an empty deque weighs 600 bytes, in each idle feed. Records are nobody's business who looks at a feed.
    ring: list[Batch] = attrs.field(init=False, factory=list, repr=False)
    size: int = attrs.field(init=False, default=0)
    readers: int = attrs.field(init=False, default=0)
    waiting: dict[Reader, Push | None] = attrs.field(init=False, factory=dict)
    news: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    broken: ChannelUnavailableError | None = attrs.field(init=False, default=None)
    scope: anyio.CancelScope = attrs.field(init=False, factory=anyio.CancelScope)

    def __attrs_post_init__(self) -> None:
        self.first_seq = self.next_seq

    def publish(self, batch: Batch) -> None:
        self.ring.append(batch)
        self.size += _bytes(batch)
        self.next_seq, self.timestamp = batch.records[-1].seq + 1, batch.timestamp
        while len(self.ring) > RING_BATCHES or (self.size > RING_BYTES and len(self.ring) > 1):
            self.size -= _bytes(self.ring.pop(0))
        self.first_seq = self.ring[0].records[0].seq
        refused = [reader for reader, push in self.waiting.items() if not reader.offer(batch, push)]
        if refused:
            self._wake()

    def fail(self, error: ChannelUnavailableError) -> None:
        self.broken = error
        self._wake()

    def _wake(self) -> None:
        news, self.news = self.news, anyio.Event()
        news.set()

    def find(self, seq: int) -> Batch | None:
        """Return the batch of the ring that holds *seq* or begins after it, cut to start there."""
        for batch in reversed(self.ring):
            if batch.records[0].seq <= seq:
                return batch.since(seq) if batch.records[-1].seq >= seq else self._after(batch)
        return self.ring[0] if self.ring else None

    def _after(self, batch: Batch) -> Batch | None:
        index = self.ring.index(batch) + 1
        return self.ring[index] if index < len(self.ring) else None


def _bytes(batch: Batch) -> int:
    return sum(len(record.body) for record in batch.records) + 64 * len(batch.records)


@attrs.define(eq=False)
class Reader:
    """One reader's position in a channel.

    Attributes:
        position: The seq that it wants next.
    """

    position: int
    _channel: Channel
    _log: ChannelLog
    _feed: _Feed

    @property
    def next_seq(self) -> int:
        """The channel's next seq, as far as the hub knows."""
        return self._feed.next_seq

    @property
    def timestamp(self) -> int:
        """Arrival of the channel's last record, as far as the hub knows."""
        return self._feed.timestamp

    @property
    def is_caught_up(self) -> bool:
        """Whether everything the hub knows of has been read."""
        return self.position >= self._feed.next_seq

    def take(self) -> Batch | None:
        """Return the next batch if the hub has it at hand, else None; never waits."""
        if self.is_caught_up or self.position < self._feed.first_seq:
            return None
        return self._advance(self._feed.find(self.position))

    async def next(self, push: Push | None = None) -> Batch:
        """Return the next batch, waiting for it if need be. Cancelling loses nothing.

        Args:
            push: Is offered each batch that comes during the wait. What it takes counts as read and is not returned.

        Raises:
            ChannelUnavailableError: The log is lost; open a new reader at :attr:`position`.
        """
        while (batch := self.take()) is None:
            if not self.is_caught_up:
                if (behind := await self._read_behind()) is not None:
                    return behind
            elif self._feed.broken is not None:
                raise self._feed.broken
            else:
                await self._wait(push)
        return batch

    def offer(self, batch: Batch, push: Push | None) -> bool:
        """Give a new batch to *push* if it is just what this reader wants; return whether it was taken."""
        if push is None or batch.records[0].seq != self.position or not push(batch):
            return False
        self._advance(batch)
        return True

    async def _wait(self, push: Push | None) -> None:
        waiting = self._feed.waiting
        waiting[self] = push
        try:
            await self._feed.news.wait()
        finally:
            del waiting[self]

    async def _read_behind(self) -> Batch | None:
        """Read what the ring does not reach back to; None if it was trimmed meanwhile."""
        batch = await self._log.read(self._channel, self.position, CATCH_UP_RECORDS)
        if not batch.records:
            self.position = max(self.position, self._feed.first_seq)
            return None
        return self._advance(batch)

    def _advance(self, batch: Batch | None) -> Batch | None:
        if batch is not None:
            self.position = batch.records[-1].seq + 1
        return batch


@attrs.define(eq=False)
class Hub:
    """Opens readers. Runs its feeds inside its own ``async with`` block."""

    _log: ChannelLog
    _feeds: dict[Channel, _Feed] = attrs.field(init=False, factory=dict)
    _tasks: anyio.abc.TaskGroup | None = attrs.field(init=False, default=None)

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()
        try:
            # What this returns is about the cancelled feeds. Passed on, it would swallow an error of the block.
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._tasks = None

    @property
    def channels(self) -> int:
        """How many channels are being followed."""
        return len(self._feeds)

    @asynccontextmanager
    async def open(self, channel: Channel, start: int, tail: Tail | None = None) -> AsyncGenerator[Reader]:
        """Open a reader whose first record is the first kept one at or after *start*.

        Args:
            channel: What to read.
            start: Where to begin.
            tail: The channel's end, from a caller who has just read it.
        """
        feed = self._join(channel, tail or await self._log.tail(channel))
        try:
            yield Reader(start, channel, self._log, feed)
        finally:
            self._leave(channel, feed)

    def _join(self, channel: Channel, tail: Tail) -> _Feed:
        feed = self._feeds.get(channel)
        if feed is None or feed.broken is not None:
            feed = self._feeds[channel] = _Feed(tail.next_seq, tail.timestamp)
            assert self._tasks is not None, "the hub is not running"
            self._tasks.start_soon(self._follow, channel, feed)
        feed.readers += 1
        return feed

    def _leave(self, channel: Channel, feed: _Feed) -> None:
        feed.readers -= 1
        if feed.readers == 0:
            feed.scope.cancel()
            if self._feeds.get(channel) is feed:
                del self._feeds[channel]

    async def _follow(self, channel: Channel, feed: _Feed) -> None:
        with feed.scope:
            try:
                async with self._log.follow(channel, feed.next_seq) as batches:
                    async for batch in batches:
                        feed.publish(batch)
            except ChannelUnavailableError as error:
                feed.fail(error)
