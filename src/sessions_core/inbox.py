"""A run's view of ``in``: messages, taken one by one in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, Self

import anyio
import attrs

from sessions_core.domain.channel import Envelope, Record, RecordKind
from sessions_core.services.channel_service import Reading
from sessions_core.services.closing import CLOSE_PART

PENDING_RECORDS: Final = 1000
"""How many records an inbox holds that its task has not taken yet."""


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
    _leave: Callable[[int], Awaitable[bool]]
    _draining: anyio.Event
    _pending: deque[Message] = attrs.field(init=False, factory=deque)
    _watchers: list[Callable[[Message], None]] = attrs.field(init=False, factory=list)
    _changed: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _taken: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _closed: bool = attrs.field(init=False, default=False)

    @property
    def read_to(self) -> int:
        """The seq up to which every record has been taken, skipped, or was no message."""
        return self._pending[0].seq - 1 if self._pending else self._arrived

    def peek(self) -> Message | None:
        """Return the next message without taking it, or None if none has arrived."""
        return self._pending[0] if self._pending else None

    async def wait(self, timeout: float | None = None) -> Message | None:
        """Take the next message, waiting up to *timeout* seconds for it.

        Returns:
            None if there is none in time, after the last message of a closed session, or when the process is about to
            stop (then end the task: the next message starts a fresh run).
        """
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

    @contextmanager
    def watch(self, watcher: Callable[[Message], None]) -> Generator[None]:
        """Show *watcher* every message that is pending or arrives inside the block, without taking it."""
        self._watchers.append(watcher)
        try:
            for message in tuple(self._pending):
                watcher(message)
            yield
        finally:
            self._watchers.remove(watcher)

    def skip(self, message: Message) -> None:
        """Drop *message*, which has been dealt with although it is not the next one."""
        if message in self._pending:
            self._pending.remove(message)

    async def pump(self) -> None:
        """Move records from the channel into the inbox, until cancelled."""
        while True:
            batch = await self._reading.next()
            for record in batch.records if batch else ():
                await self._deliver(record)

    async def _deliver(self, record: Record) -> None:
        while len(self._pending) >= PENDING_RECORDS:
            await self._taken.wait()
        self._arrived = record.seq
        if record.kind is not RecordKind.DATA:
            return
        message = message_of(record)
        self._pending.append(message)
        self._closed = self._closed or message.part_id == CLOSE_PART
        for watcher in tuple(self._watchers):
            watcher(message)
        self.wake()

    def wake(self) -> None:
        """Let those who wait look again."""
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _take(self) -> Message:
        message = self._pending.popleft()
        taken, self._taken = self._taken, anyio.Event()
        taken.set()
        return message
