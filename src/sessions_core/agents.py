"""What a task author imports for raw access: the registry of tasks, and the run a task is given.

Chat turns are one layer further out, in :mod:`sessions_core.chat`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final, Self

import anyio
import attrs

from sessions_core.domain.channel import (
    Envelope,
    Io,
    NewRecord,
    Record,
    RecordKind,
    control_record,
    data_record,
)
from sessions_core.domain.events import Event
from sessions_core.domain.ids import PartId, RunId
from sessions_core.domain.run import REASON_MANUAL, Holding, Progress, RunRecord
from sessions_core.domain.session import Session
from sessions_core.domain.trigger_config import DEFAULT_IDLE_TIMEOUT_SECONDS
from sessions_core.errors import ClosedError, StaleRunError
from sessions_core.services.channel_service import ChannelService, Reading
from sessions_core.services.closing import CLOSE_PART
from sessions_core.services.run_manager import HandOver
from sessions_core.services.session_service import SessionService

PENDING_RECORDS: Final = 1000
"""How many records an inbox holds that its task has not taken yet."""
LONGEST_IDLE_SECONDS: Final = 86_400
CLOSE_SECONDS: Final = 5.0
"""How long a generator that is piped may take to clean up."""


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

    async def wait_or_leave(self, idle_timeout: float) -> Message | None:
        """Take the next message; if none comes within *idle_timeout* seconds, leave.

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
        message = _message(record)
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


@attrs.define(eq=False)
class Outbox:
    """The session's ``out`` channel as the current attempt writes it. Refused once the attempt is over.

    Attributes:
        tail: The seq after the last record that this attempt wrote (or that was there when it began).
        refusal: The error that told that this attempt is over or its session closed; None while it may write.
    """

    tail: int
    _session: Session
    _epoch: int
    _channels: ChannelService
    refusal: StaleRunError | ClosedError | None = attrs.field(init=False, default=None)

    async def append(self, *values: Any) -> int:
        """Append each value as a data record, all or none; return the seq of the last.

        Raises:
            StaleRunError: Another attempt or run has taken over.
            ClosedError: The session is closed or expired.
            RecordTooLargeError: A value is too large; nothing was appended.
        """
        return await self.write(self.data_records(values))

    def data_records(self, values: Iterable[Any]) -> list[NewRecord]:
        """Make (but not append) a data record of each value."""
        new_part = self._channels.ids.new_part
        return [data_record(value, PartId(new_part()), dedupe=False) for value in values]

    async def control(self, subtype: str, siblings: Mapping[str, str] | None = None) -> int:
        """Append a control record; return its seq. Raises like :meth:`append`."""
        return await self.write([control_record(subtype, siblings)])

    async def pipe(self, values: AsyncIterable[Any]) -> int:
        """Append every value of an async iterable as it comes; return the seq of the last (or ``tail - 1``)."""
        try:
            async for value in values:
                await self.append(value)
        finally:
            await close_generator(values)
        return self.tail - 1

    async def trim(self, first_kept: int) -> int:
        """Let the records before *first_kept* go; return the seq of the trim command. Raises like :meth:`append`."""
        with self.noting_refusal():
            seq = await self._channels.trim(self._session, first_kept, epoch=self._epoch)
        self.tail = max(self.tail, seq + 1)
        return seq

    async def write(self, records: Sequence[NewRecord]) -> int:
        """Append ready-made records; return the seq of the last. Raises like :meth:`append`."""
        if not records:
            return self.tail - 1
        with self.noting_refusal():
            appended = await self._channels.append(self._session, Io.OUT, records, epoch=self._epoch)
        self.tail = max(self.tail, appended[-1].seq + 1)
        return appended[-1].seq

    @contextmanager
    def noting_refusal(self) -> Generator[None]:
        """Remember an error that says that this attempt is over."""
        try:
            yield
        except (StaleRunError, ClosedError) as error:
            self.refusal = error
            raise


@attrs.define(eq=False, kw_only=True)
class Run:
    """One attempt of one run, as its task sees it.

    Attributes:
        payload: What the session's creator and this library put in (``sessionId``, ``continuation`` …).
        cursor: The last ``in`` record that is committed, i.e. covered by a turn-complete.
    """

    record: RunRecord
    session: Session
    inbox: Inbox
    out: Outbox
    cursor: int
    _sessions: SessionService = attrs.field(alias="sessions")
    _channels: ChannelService = attrs.field(alias="channels")

    @property
    def id(self) -> RunId:
        """The run's id."""
        return self.record.id

    @property
    def payload(self) -> Mapping[str, Any]:
        """The run's payload."""
        return self.record.payload

    @property
    def holding(self) -> Holding:
        """Which attempt of which run this is."""
        return Holding(self.record.id, self.record.attempt)

    @property
    def is_continuation(self) -> bool:
        """Whether this run goes on where another one stopped."""
        return bool(self.payload.get("continuation"))

    @property
    def idle_timeout(self) -> float:
        """Seconds to wait for the next message before leaving."""
        value = self.payload.get("idleTimeoutInSeconds")
        if not isinstance(value, int | float) or not value > 0:
            return DEFAULT_IDLE_TIMEOUT_SECONDS
        return float(min(value, LONGEST_IDLE_SECONDS))

    async def end_and_continue(self, reason: str = REASON_MANUAL) -> HandOver:
        """Hand the session over to a new run; end the task afterwards, since writes are refused from then on.

        Raises:
            StaleRunError: This run was replaced already.
            ClosedError: The session is closed or expired.
        """
        with self.out.noting_refusal():
            return await self._sessions.end_and_continue(
                self.session.environment.id,
                self.session.id,
                self.id,
                reason,
                epoch=self.record.epoch,
                progress=Progress(self.dealt_with, self.out.tail),
            )

    async def close(self, reason: str | None = None) -> None:
        """Close the session for good; end the task afterwards.

        Raises:
            StaleRunError: This run was replaced.
        """
        with self.out.noting_refusal():
            await self._sessions.close(
                self.session.environment.id, self.session.id, reason, calling_run=self.id, epoch=self.record.epoch
            )

    async def read_back(self, io: Io, before: int, limit: int) -> list[Message]:
        """Return at most *limit* data records of a channel with a seq below *before*, newest first."""
        records = await self._channels.log.read_back(self.session.channel(io), before, limit)
        data = [record for record in records if record.kind is RecordKind.DATA]
        return [_message(record) for record in data]

    def report(self, event: Event) -> None:
        """Tell the observer a fact."""
        self._channels.observer(event)

    @property
    def dealt_with(self) -> int:
        """The last ``in`` record that a run which takes over now need not see: what was taken from the inbox."""
        return max(self.cursor, self.inbox.read_to)

    def ended_at(self, initial_tail: int) -> Progress:
        """Return the progress that a clean end of this run proves.

        What a task has taken from its inbox is dealt with. A task that took nothing is taken to have seen what was there
        when it began, so that records it does not care about do not start run after run.
        """
        seen = self.inbox.read_to if self.inbox.read_to > self.record.start.cursor else initial_tail - 1
        return Progress(max(self.cursor, seen), self.out.tail)


async def close_generator(values: AsyncIterable[Any]) -> None:
    """Close *values* if it is a generator, so that what it holds is released now and not some time later."""
    if isinstance(values, AsyncGenerator):
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await values.aclose()


def _message(record: Record) -> Message:
    envelope = Envelope.parse(record.body) or Envelope()
    return Message(record.seq, envelope.data, envelope.id)


Task = Callable[[Any], Awaitable[None]]


@attrs.define
class Agents:
    """The tasks that this process can run, by their identifiers."""

    run_class: ClassVar[type[Run]] = Run
    _tasks: dict[str, Task] = attrs.field(init=False, factory=dict)

    def task(self, name: str) -> Callable[[Callable[[Any], Awaitable[None]]], Callable[[Any], Awaitable[None]]]:
        """Register the decorated coroutine function as task *name*.

        Raises:
            ValueError: The name is taken.
        """

        def register(function: Task) -> Task:
            if name in self._tasks:
                message = f"task {name!r} is registered already"
                raise ValueError(message)
            self._tasks[name] = function
            return function

        return register

    def find(self, name: str) -> Task | None:
        """Return the task called *name*, or None."""
        return self._tasks.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """All task identifiers."""
        return tuple(self._tasks)
