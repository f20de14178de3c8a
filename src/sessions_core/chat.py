"""Chat on top of sessions: turns that speak the AI SDK's UI-message chunks.

::

    from sessions_core.chat import Agents, Run

    agents = Agents()

    @agents.task("echo")
    async def echo(run: Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text(f"you said: {turn.text_input}")

What travels on ``in`` and ``out`` is listed in docs/reference/records.md: a turn begins with a ``message`` record on
``in`` and always ends with a ``turn-complete`` on ``out`` that names it, also when it was stopped or failed.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ClassVar, Final, Self

import anyio
import attrs
from anyio.lowlevel import checkpoint_if_cancelled

from sessions_core import agents as raw
from sessions_core.domain.channel import SESSION_IN_EVENT_ID, TURN_COMPLETE, Io, control_record
from sessions_core.domain.events import TurnFailed
from sessions_core.domain.json_values import as_list, as_object
from sessions_core.inbox import Message
from sessions_core.outbox import close_generator

MESSAGE: Final = "message"
STOP: Final = "stop"
SUBMIT: Final = "submit-message"
REGENERATE: Final = "regenerate-message"
ACTION: Final = "action"
CLOSE: Final = "close"
SCAN_MESSAGES: Final = 32
SCAN_LIMIT: Final = 2048
WRITE_SECONDS: Final = 30.0
ERROR_TEXT: Final = "The agent failed to answer this message."


@attrs.frozen
class Input:
    """A record of ``in`` as chat understands it: its ``kind`` and ``payload``."""

    kind: str
    payload: Mapping[str, Any]

    @classmethod
    def parse(cls, data: Any) -> Input | None:
        """Read a record's data; None if it is nothing that chat knows."""
        if isinstance(data, str):
            try:
                data = json.loads(data)
            except (ValueError, RecursionError):
                return None
        members = as_object(data)
        if members is None or not isinstance(members.get("kind"), str):
            return None
        return cls(members["kind"], as_object(members.get("payload")) or {})

    @property
    def trigger(self) -> str:
        """What the client wants: ``submit-message``, ``regenerate-message``, ``action`` or ``close``."""
        trigger = self.payload.get("trigger")
        return trigger if isinstance(trigger, str) else SUBMIT


def text_of(message: Mapping[str, Any] | None) -> str:
    """Join the text parts of a UI message."""
    parts = [as_object(part) or {} for part in as_list((message or {}).get("parts")) or ()]
    texts = [part.get("text") for part in parts if part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


@attrs.define(eq=False, kw_only=True)
class Turn:
    """One input and everything it produces. Use it as ``async with turn:``, which always completes it.

    Attributes:
        seq: The ``in`` seq of the input.
        payload: The input's payload as the client sent it.
        trigger: ``submit-message``, ``regenerate-message`` or ``action``.
        message: The user's UI message; for a regeneration the last one that was sent.
        is_stopped: Whether the user stopped this turn.
    """

    run: Run
    seq: int
    payload: Mapping[str, Any]
    trigger: str
    message: Mapping[str, Any] | None
    is_stopped: bool = attrs.field(default=False, init=False)
    _scope: anyio.CancelScope = attrs.field(init=False, factory=anyio.CancelScope)
    _watch: AbstractContextManager[None] | None = attrs.field(init=False, default=None)
    _covered: int = attrs.field(init=False)
    _is_begun: bool = attrs.field(init=False, default=False)
    _texts: int = attrs.field(init=False, default=0)
    _open_text: str | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._covered = self.seq

    @property
    def text_input(self) -> str:
        """The text of the user's message."""
        return text_of(self.message)

    @property
    def action(self) -> Any:
        """The client's action, if the trigger is ``action``."""
        return self.payload.get("action")

    async def text(self, content: str | AsyncIterable[str]) -> None:
        """Write a text part: at once, or delta by delta as an async iterable gives them.

        A generator is closed when the turn is stopped in the middle, so that what it reads from is let go at once.
        """
        self._texts += 1
        part = f"text-{self._texts}"
        start, end = {"type": "text-start", "id": part}, {"type": "text-end", "id": part}
        if isinstance(content, str):
            await self.write(start, {"type": "text-delta", "id": part, "delta": content}, end)
            return
        await self.write(start)
        self._open_text = part
        try:
            async for delta in content:
                await self.write({"type": "text-delta", "id": part, "delta": delta})
        finally:
            await close_generator(content)
        await self.write(end)
        self._open_text = None

    async def data(self, name: str, value: Any) -> None:
        """Write a ``data-<name>`` part."""
        await self.write({"type": f"data-{name}", "data": value})

    async def write(self, *chunks: Mapping[str, Any]) -> None:
        """Write UI-message chunks as they are, after the message's ``start`` if it has not been written.

        A stop comes before or after it, never in the middle: what has been begun must be known, so as to be ended.
        """
        await checkpoint_if_cancelled()
        with anyio.fail_after(WRITE_SECONDS, shield=True):
            await self.run.out.append(*self._beginning(), *chunks)
            self._is_begun = True

    def _beginning(self) -> tuple[Mapping[str, Any], ...]:
        if self._is_begun:
            return ()
        message_id = f"msg-{self.seq}-{self.run.record.epoch}"
        return ({"type": "start", "messageId": message_id}, {"type": "start-step"})

    async def __aenter__(self) -> Self:
        self._scope.__enter__()
        self._watch = self.run.inbox.watch(self._look_for_stop)
        self._watch.__enter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._watch is not None
        self._watch.__exit__(None, None, None)
        was_stopped = bool(self._scope.__exit__(exc_type, exc, traceback))
        if exc is None or was_stopped:
            await self._complete(())
            return was_stopped
        if exc is self.run.out.refusal or not isinstance(exc, Exception):
            return False
        self.run.report(TurnFailed(run_id=self.run.id, error=type(exc).__name__, exception=exc))
        await self._complete(({"type": "error", "errorText": ERROR_TEXT},))
        return True

    def _look_for_stop(self, message: Message) -> None:
        given = Input.parse(message.data)
        if given is None or given.kind != STOP or self.is_stopped or message.seq < self.seq:
            return
        self.is_stopped = True
        self.run.inbox.skip(message)
        following = self.run.inbox.peek()
        if following is None or following.seq > message.seq:
            self._covered = message.seq
        self._scope.cancel()

    async def _complete(self, last: tuple[Mapping[str, Any], ...]) -> None:
        closing: list[Mapping[str, Any]] = []
        if self._open_text is not None:
            closing.append({"type": "text-end", "id": self._open_text})
        closing.extend(last)
        if self._is_begun:
            closing.extend(({"type": "finish-step"}, {"type": "finish"}))
        await self.run.complete_turn(self._covered, closing)


@attrs.define(eq=False, kw_only=True)
class Run(raw.Run):
    """A run that can take chat turns."""

    _open_turn: int | None = attrs.field(init=False, default=None)

    def turns(self) -> AsyncIterator[Turn]:
        """Give one turn after another, from the committed cursor on.

        Ends when the run has been idle for ``idleTimeoutInSeconds`` and has left, on a ``close``, when the session was
        closed, and when the process is about to stop. Records that are no chat input are skipped and count as read.
        """
        return _Turns(self)

    async def next_turn(self) -> Turn | None:
        """Return the next of :meth:`turns`, or None after the last one."""
        while (message := await self.inbox.wait_or_leave(self.idle_timeout)) is not None:
            given = Input.parse(message.data)
            if given is None or given.kind != MESSAGE:
                continue
            return None if given.trigger == CLOSE else await self._turn(message, given)
        return None

    @property
    def dealt_with(self) -> int:
        """The last ``in`` record that a run which takes over now need not see: it gets the input of an open turn again."""
        taken = super().dealt_with
        return taken if self._open_turn is None else max(self.cursor, min(taken, self._open_turn - 1))

    async def complete_turn(self, covered: int, chunks: list[Mapping[str, Any]]) -> None:
        """Write the last *chunks* of a turn, and with them the turn-complete that covers ``in`` up to *covered*."""
        complete = control_record(TURN_COMPLETE, {SESSION_IN_EVENT_ID: str(covered)})
        await self.out.write([*self.out.data_records(chunks), complete])
        self.cursor = max(self.cursor, covered)
        self._open_turn = None

    async def _turn(self, message: Message, given: Input) -> Turn:
        said = as_object(given.payload.get("message"))
        if given.trigger == REGENERATE:
            said = await self._last_said(message.seq)
        self._open_turn = message.seq
        return Turn(run=self, seq=message.seq, payload=given.payload, trigger=given.trigger, message=said)

    async def _last_said(self, before: int) -> Mapping[str, Any] | None:
        """Return the newest user message on ``in`` before a seq, looking back at most a bounded way."""
        oldest = before - SCAN_LIMIT
        while before > max(oldest, 0):
            messages = await self.read_back(Io.IN, before, SCAN_MESSAGES)
            for message in messages:
                given = Input.parse(message.data)
                said = as_object(given.payload.get("message")) if given and given.trigger == SUBMIT else None
                if said is not None:
                    return said
            before = max(before - SCAN_MESSAGES, 0) if not messages else messages[-1].seq
        return None


@attrs.define(eq=False)
class _Turns(AsyncIterator[Turn]):
    """Not a generator, since a task may fail in the middle of its loop and leave nothing behind to be closed."""

    _run: Run

    async def __anext__(self) -> Turn:
        turn = await self._run.next_turn()
        if turn is None:
            raise StopAsyncIteration
        return turn


ChatTask = Callable[[Run], Awaitable[None]]


@attrs.define
class Agents(raw.Agents):
    """The chat tasks that this process can run, by their identifiers."""

    run_class: ClassVar[type[raw.Run]] = Run

    def task(self, name: str) -> Callable[[ChatTask], ChatTask]:
        """Register the decorated coroutine function as task *name*.

        Raises:
            ValueError: The name is taken.
        """
        return super().task(name)
