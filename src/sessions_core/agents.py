"""What a task author imports for raw access: the registry of tasks, and the run a task is given.

Chat turns are one layer further out, in :mod:`sessions_core.chat`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

import attrs

from sessions_core.domain.channel import Io, Record, RecordKind
from sessions_core.domain.events import Event
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import REASON_MANUAL, Holding, Progress, RunRecord
from sessions_core.domain.session import Session
from sessions_core.domain.trigger_config import DEFAULT_IDLE_TIMEOUT_SECONDS
from sessions_core.inbox import Inbox, Message, message_of
from sessions_core.outbox import Outbox
from sessions_core.services.channel_service import ChannelService
from sessions_core.services.run_manager import HandOver
from sessions_core.services.session_service import SessionService
from sessions_core.services.token_issuer import TokenIssuer
from sessions_core.services.unfinished import read_unfinished

LONGEST_IDLE_SECONDS: Final = 86_400


@attrs.frozen
class Recovered:
    """What dead predecessors have written on ``out`` since the last turn-complete.

    Attributes:
        messages: The data records, oldest first; none if nobody died in the middle of a turn.
        is_whole: False if there was more than about 16 000 records or 8 MiB, or some were trimmed; then the oldest are
            left out.
    """

    messages: tuple[Message, ...] = ()
    is_whole: bool = True


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
    _tokens: TokenIssuer = attrs.field(alias="tokens")
    _began_at: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._began_at = self.out.tail

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
                progress=self.progress,
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

    async def recovered(self) -> Recovered:
        """Return what predecessors that died have written in the turn that this run is going to answer again.

        What this run writes itself is never part of it.

        Raises:
            UnavailableError: No answer.
        """
        found = await read_unfinished(
            self._channels.log,
            self.session.channel(Io.OUT),
            before=self._began_at,
            oldest=self.record.start.out_tail,
        )
        return Recovered(tuple(map(message_of, found.records)), is_whole=found.is_whole)

    async def session_token(self) -> str | None:
        """Return a fresh token with which clients may read and write this session, for a turn-complete that is written by hand.

        None if nothing here issues tokens, or if the environment's key cannot be had now: a client has other ways to a
        token, and a turn does not wait for this one.
        """
        return await self._tokens.issue(self.session)

    async def read_back(self, io: Io, before: int, limit: int) -> list[Message]:
        """Return at most *limit* data records of a channel with a seq below *before*, newest first."""
        records = await self.read_records_back(io, before, limit)
        return [message_of(record) for record in records if record.kind is RecordKind.DATA]

    async def read_records_back(self, io: Io, before: int, limit: int) -> list[Record]:
        """Return at most *limit* records of a channel of whatever kind with a seq below *before*, newest first."""
        return await self._channels.log.read_back(self.session.channel(io), before, limit)

    def report(self, event: Event) -> None:
        """Tell the observer a fact."""
        self._channels.observer(event)

    @property
    def progress(self) -> Progress:
        """How far a run that takes over now need not go back: what was taken from the inbox is dealt with."""
        return Progress(max(self.cursor, self.inbox.read_to), self.out.tail)

    def ended_at(self, initial_tail: int) -> Progress:
        """Return the progress that a clean end of this run proves.

        What a task has taken from its inbox is dealt with. A task that took nothing is taken to have seen what was there
        when it began, so that records it does not care about do not start run after run.
        """
        seen = self.inbox.read_to if self.inbox.read_to > self.record.start.cursor else initial_tail - 1
        return Progress(max(self.cursor, seen), self.out.tail)


Task = Callable[[Any], Awaitable[None]]


@attrs.define
class Agents:
    """The tasks that this process can run, by their identifiers."""

    run_class: ClassVar[type[Run]] = Run
    _tasks: dict[str, Task] = attrs.field(init=False, factory=dict)

    def task(self, name: str) -> Callable[[Task], Task]:
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

    def give_up(self, written: Iterable[Any], error_text: str, *, is_whole: bool) -> list[Any]:  # noqa: ARG002 - chat's override
        """Return what ends an answer that is given up, after all attempts at it have failed.

        Args:
            written: What is on ``out`` since the last turn-complete, oldest first.
            error_text: What the reader is told.
            is_whole: False if *written* lacks its beginning.
        """
        return [{"type": "error", "errorText": error_text}]

    @property
    def names(self) -> tuple[str, ...]:
        """All task identifiers."""
        return tuple(self._tasks)
