"""Following a channel over connections and servers that come and go.

The seq is the only cursor: every connection goes on after the last record that was taken, so nothing is lost, and what
comes a second time is dropped. A channel of which some records are no longer kept has a gap, which is told.
"""

from __future__ import annotations

import asyncio
import random
from time import monotonic
from typing import Final, Protocol

import attrs

from sessions_core.domain.channel import Batch, Io, Record
from sessions_core.errors import SessionsError
from sessions_server.cli.remote import Remote, Subscription, may_pass
from sessions_server.cli.terminal import Terminal

FROM_END: Final = 2**53 - 1
"""A seq past every tail: the server takes the tail for it."""
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
HEALTHY_SECONDS: Final = 1.0
"""A connection that lasted so long was no failure to connect."""


class Sink(Protocol):
    """What takes the records."""

    def take(self, record: Record) -> bool:
        """Take the next record; tell whether that was all that is wanted."""

    def miss(self, first_missing: int, first_kept: int) -> None:
        """Learn that the records from *first_missing* up to *first_kept* are no longer kept."""


@attrs.define(eq=False, kw_only=True)
class Follower:
    """Brings a channel's records to a sink.

    Attributes:
        next_seq: The seq to begin with and, later, to go on with; None begins at the tail.
        stops_at_tail: End once everything has been read that was there when the server first told the tail.
        first_tail: The seq that the next record would have got when the server first told it; None until then.
    """

    remote: Remote
    terminal: Terminal
    sink: Sink
    session: str
    io: Io
    next_seq: int | None = 0
    stops_at_tail: bool = False
    first_tail: int | None = attrs.field(init=False, default=None)
    _last: Record | None = attrs.field(init=False, default=None)
    _was_connected: bool = attrs.field(init=False, default=False)

    async def run(self) -> None:
        """Follow until the sink has what it wants or the tail is reached, if that is the end.

        A lost connection is made again, however often and long that takes; the first one has to come about.

        Raises:
            RefusedError: The server will not let the channel be followed.
            UnreachableError: There is no server.
            BrokenPipeError: Nobody reads what is written any more.
        """
        pause = FIRST_PAUSE
        while True:
            began = monotonic()
            try:
                if await self._follow_once():
                    return
            except SessionsError as error:
                if not self._was_connected or not may_pass(error):
                    raise
                self.terminal.note(f"the connection to {self.remote.url} is lost; trying again")
            pause = FIRST_PAUSE if monotonic() - began > HEALTHY_SECONDS else min(2 * pause, LONGEST_PAUSE)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - so that many do not come back at once

    async def _follow_once(self) -> bool:
        """Follow on one connection; tell whether that was all."""
        async with self.remote.subscribe(self.session, self.io, self._after()) as subscription:
            self._was_connected = True
            if subscription.gap is not None:
                self._skip_to(subscription.gap)
            return await self._drain(subscription)

    def _after(self) -> int | None:
        if self.next_seq is None:
            return FROM_END
        return self.next_seq - 1 if self.next_seq > 0 else None

    async def _drain(self, subscription: Subscription) -> bool:
        while (batches := await subscription.next()) is not None:
            if self.terminal.is_abandoned():
                raise BrokenPipeError
            if any(self._take(batch) for batch in batches):
                return True
        return False

    def _take(self, batch: Batch) -> bool:
        if self.next_seq is None:
            self.next_seq = batch.records[0].seq if batch.records else batch.next_seq
        if self.first_tail is None and not batch.records:
            self.first_tail = batch.next_seq  # A ping's tail is the newest known; a batch's is as old as the batch.
        if any(self._take_record(record) for record in batch.records):
            return True
        return self.stops_at_tail and self.first_tail is not None and self.next_seq >= self.first_tail

    def _take_record(self, record: Record) -> bool:
        assert self.next_seq is not None
        if record.seq < self.next_seq and not self._is_new(record):
            return False
        if self._last is not None or self.next_seq > 0:
            self._skip_to(record.seq)
        self.next_seq, self._last = record.seq + 1, record
        return self.sink.take(record)

    def _is_new(self, record: Record) -> bool:
        """Tell whether a seq that was there already comes from a channel that began anew, as one in memory does.

        Along one channel the time never falls, so a later time under an earlier seq belongs to another one.
        """
        return self._last is not None and record.timestamp > self._last.timestamp

    def _skip_to(self, seq: int) -> None:
        if self.next_seq is not None and seq > self.next_seq:
            self.sink.miss(self.next_seq, seq)
            self.next_seq = seq
