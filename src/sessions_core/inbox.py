"""A run's view of ``in``: messages, taken one by one in their order.

How this works
--------------
The *pump* moves records from the channel into a queue of bounded size. When it is full, the pump waits for room, unless
somebody watches: a watcher wants to see a message (a stop, say) however much waits before it. Then the pump reads on and
only shows what it reads; who takes messages later reads that part of the channel again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Self

import anyio
import attrs

from sessions_core.domain.channel import Envelope, Record, RecordKind
from sessions_core.services.channel_service import Reading
from sessions_core.services.closing import CLOSE_PART

PENDING_RECORDS: Final = 1000
PENDING_BYTES: Final = 4 * 1_048_576
"""How much an inbox holds that its task has not taken yet. One message is held whatever its size."""


@attrs.frozen
class Message:
    """A record of ``in`` as a task sees it.

    Attributes:
        seq: The record's number.
        data: What was sent; a text for everything that came over HTTP.
        part_id: The id in the record's envelope.
    """

    seq: int
    data: Any
    part_id: str = ""


def message_of(record: Record) -> Message:
    """Return a data record as a task sees it."""
    envelope = Envelope.parse(record.body) or Envelope()
    return Message(record.seq, envelope.data, envelope.id)


@attrs.define(eq=False)
class Inbox:
    """The session's ``in`` channel, read once and in order from the committed cursor on."""

    _arrived: int
    _reading: Reading
    _read_again: Callable[[int], Awaitable[Sequence[Record]]]
    _leave: Callable[[int], Awaitable[bool]]
    _draining: anyio.Event
    _pending: OrderedDict[int, tuple[Message, int]] = attrs.field(init=False, factory=OrderedDict)
    _size: int = attrs.field(init=False, default=0)
    _seen: int = attrs.field(init=False)
    _skipped: set[int] = attrs.field(init=False, factory=set)
    _watchers: list[Callable[[Message], None]] = attrs.field(init=False, factory=list)
    _changed: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _may_go_on: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _closed: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._seen = self._arrived

    @property
    def read_to(self) -> int:
        """The seq up to which every record has been taken, skipped, or was no message."""
        return next(iter(self._pending)) - 1 if self._pending else self._arrived

    def peek(self) -> Message | None:
        """Return the next message without taking it, or None if none has arrived."""
        return next(iter(self._pending.values()))[0] if self._pending else None

    async def wait(self, timeout: float | None = None) -> Message | None:
        """Take the next message, waiting up to *timeout* seconds for it.

        Returns:
            None if there is none in time, after the last message of a closed session, or when the process is about to
            stop (then end the task: the next message starts a fresh run).

        Raises:
            UnavailableError: More waits than is held here, and the log gave no answer; ask again.
        """
        if self._is_behind and len(self._pending) <= 1:
            await self._catch_up()  # Before the last one is taken, so that a look at the next one finds it.
        with anyio.move_on_after(timeout):
            while not self._pending and not self._closed and not self._draining.is_set():
                await self._changed.wait()
        if not self._pending or self._draining.is_set():
            return None
        return self._take()

    async def wait_with_idle_timeout(self, idle_timeout: float) -> Message | None:
        """Take the next message, staying warm for *idle_timeout* seconds; if none comes in that time, leave.

        After this has returned None no message can reach this run any more; the next one starts a fresh run.
        """
        while True:
            message = await self.wait(idle_timeout)
            if message is not None or self._closed or self._draining.is_set():
                return message
            if await self._leave(self.read_to):
                return None
            # A message was stored just now: it is on its way to us.

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """Take the next message, until the session is closed or the process is about to stop."""
        message = await self.wait()
        if message is None:
            raise StopAsyncIteration
        return message

    def watch(self, watcher: Callable[[Message], None]) -> None:
        """Show *watcher* every message that is pending or arrives from now on, without taking it."""
        self._watchers.append(watcher)
        for message, _ in tuple(self._pending.values()):
            watcher(message)
        self._let_go_on()

    def skip(self, seq: int) -> None:
        """Drop the message *seq*, which has been dealt with although it is not the next one."""
        if seq > self._arrived:
            self._skipped.add(seq)
        elif seq in self._pending:
            self._remove(seq)

    async def pump(self) -> None:
        """Move records from the channel into the inbox, until cancelled."""
        while True:
            batch = await self._reading.next()
            for record in batch.records if batch else ():
                while not self._has_room and not self._watchers:
                    await self._may_go_on.wait()
                self._deliver(record)

    def wake(self) -> None:
        """Let those who wait look again."""
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    @property
    def _has_room(self) -> bool:
        return len(self._pending) < PENDING_RECORDS and self._size < PENDING_BYTES

    @property
    def _is_behind(self) -> bool:
        """Whether records have been seen that are not in the queue."""
        return self._arrived < self._seen

    def _deliver(self, record: Record) -> None:
        message = message_of(record) if record.kind is RecordKind.DATA else None
        if self._has_room and not self._is_behind:
            self._enqueue(record, message)
        self._seen = record.seq
        if message is not None:
            for watcher in tuple(self._watchers):
                watcher(message)
            self.wake()

    def _enqueue(self, record: Record, message: Message | None) -> None:
        self._arrived = record.seq
        if message is None:
            return
        if record.seq in self._skipped:
            self._skipped.remove(record.seq)
            return
        self._pending[record.seq] = (message, len(record.body))
        self._size += len(record.body)
        self._closed = self._closed or message.part_id == CLOSE_PART

    async def _catch_up(self) -> None:
        """Read again what was only shown when it came, as far as there is room."""
        while self._is_behind and self._has_room:
            records = await self._read_again(self._arrived + 1)
            for record in records:
                if self._arrived < record.seq <= self._seen and self._has_room:
                    self._enqueue(record, message_of(record) if record.kind is RecordKind.DATA else None)
            if not records or records[0].seq > self._seen:
                self._arrived = self._seen  # They are no longer kept.

    def _take(self) -> Message:
        return self._remove(next(iter(self._pending)))

    def _remove(self, seq: int) -> Message:
        message, size = self._pending.pop(seq)
        self._size -= size
        self._let_go_on()
        return message

    def _let_go_on(self) -> None:
        may_go_on, self._may_go_on = self._may_go_on, anyio.Event()
        may_go_on.set()
