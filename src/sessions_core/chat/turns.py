"""Turns, and the run that gives them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ClassVar, Final, Self

import anyio
import attrs

from sessions_core import agents as raw
from sessions_core.chat.answer_writer import AnswerWriter
from sessions_core.chat.chunks import RESTART, Chunk
from sessions_core.chat.inputs import CLOSE, REGENERATE, Input, text_of
from sessions_core.chat.partial import PartialAnswer, find_partial, given_up
from sessions_core.chat.stops import Stops
from sessions_core.domain.channel import (
    PUBLIC_ACCESS_TOKEN,
    SESSION_IN_EVENT_ID,
    TURN_COMPLETE,
    Io,
    RecordKind,
    control_record,
)
from sessions_core.domain.events import TurnFailed, TurnStopped
from sessions_core.domain.ids import SESSION_PREFIX
from sessions_core.domain.json_values import as_object
from sessions_core.domain.run import Progress
from sessions_core.domain.session import Session
from sessions_core.errors import UnavailableError
from sessions_core.inbox import Message
from sessions_core.unwrapping import consists_of, is_because_of, leaves, unwrap

SCAN_MESSAGES: Final = 32
SCAN_LIMIT: Final = 2048
ERROR_TEXT: Final = "The agent failed to answer this message."


def message_id(session: Session, seq: int) -> str:
    """Return the id of the message that answers record *seq* of ``in``, whichever attempt writes it."""
    return f"msg-{session.id.removeprefix(SESSION_PREFIX)}-{seq}"


@attrs.define(eq=False, kw_only=True)
class Turn:
    """One input and everything it produces. Use it as ``async with turn:``, which completes it, also when it fails or is stopped.

    Only where a system of ours gives no answer (``UnavailableError``) is it left as it is: that is no failure of the agent,
    so the run ends, and the next one goes on with the same answer.

    Attributes:
        seq: The ``in`` seq of the input.
        payload: The input's payload as the client sent it.
        trigger: ``submit-message``, ``regenerate-message`` or ``action``.
        message: The user's UI message; for a regeneration the last one that was sent.
        recovered: What a predecessor that died has written of the answer to this very input.
        is_stopped: Whether the user stopped this turn.
    """

    run: Run
    seq: int
    payload: Mapping[str, Any]
    trigger: str
    message: Mapping[str, Any] | None
    recovered: PartialAnswer = attrs.field(factory=PartialAnswer)
    is_stopped: bool = attrs.field(default=False, init=False)
    _scope: anyio.CancelScope = attrs.field(init=False, factory=anyio.CancelScope)
    _hearing: AbstractContextManager[None] | None = attrs.field(init=False, default=None)
    _covered: int = attrs.field(init=False)
    _answer: AnswerWriter = attrs.field(init=False)
    _texts: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._covered = self.seq
        self._answer = AnswerWriter(self.run.out, self.message_id, self.recovered)

    @property
    def text_input(self) -> str:
        """The text of the user's message."""
        return text_of(self.message)

    @property
    def action(self) -> Any:
        """The client's action, if the trigger is ``action``."""
        return self.payload.get("action")

    @property
    def metadata(self) -> Any:
        """The client's data that came with the input, or None."""
        return self.payload.get("metadata")

    @property
    def message_id(self) -> str:
        """The id of the message that this turn writes; the same for every attempt."""
        return message_id(self.run.session, self.seq)

    async def text(self, content: str | AsyncIterable[str]) -> None:
        """Write a text part: at once, or delta by delta as an async iterable gives them.

        Deltas that come faster than they can be stored are stored together. A generator is closed when the turn is
        stopped in the middle, so that what it reads from is let go at once. Empty deltas are left out.
        """
        self._texts += 1
        part = f"text-{self._texts}"
        start, end = {"type": "text-start", "id": part}, {"type": "text-end", "id": part}
        if isinstance(content, str):
            await self.write(start, {"type": "text-delta", "id": part, "delta": content}, end)
            return
        await self.write(start)
        await self._answer.pipe(
            content, lambda delta: [{"type": "text-delta", "id": part, "delta": delta}] if delta else []
        )
        await self.write(end)

    async def data(self, name: str, value: Any, *, id: str | None = None) -> None:  # noqa: A002 - the wire's word
        """Write a ``data-<name>`` part; one with the same *id* in the same message takes the place of the one before."""
        part = {"type": f"data-{name}", "data": value}
        await self.write(part if id is None else {**part, "id": id})

    async def pipe(self, chunks: AsyncIterable[Chunk]) -> None:
        """Write UI-message chunks as an async iterable gives them, like :meth:`write` and in the manner of :meth:`text`."""
        await self._answer.pipe(chunks, lambda chunk: [chunk])

    async def write(self, *chunks: Chunk) -> None:
        """Write UI-message chunks, all or none, as they are but for ``start`` and ``finish``.

        (More than 1 000 chunks or 1 MiB go into several appends, of which a crash may leave the first ones.) These two are the turn's own, written before the first chunk and at its end; of others only their
        ``messageMetadata`` are kept. A stop comes before or after the whole call, never in the middle.

        Raises:
            InvalidError: A chunk has no ``type``.
            RecordTooLargeError: A chunk is too large.
        """
        await self._answer.write(chunks)

    async def last_data(self, name: str) -> Any:
        """Return the value of the newest ``data-<name>`` part that was written before this turn; None if there is none.

        The way to keep a little state over runs: what is on ``out`` outlives them all. Looks back over the latest
        2 048 records.
        """
        return await self.run.find_data(f"data-{name}")

    async def __aenter__(self) -> Self:
        self._scope.__enter__()
        self._hearing = self.run.stops.calling(self._stop, self.seq)
        self._hearing.__enter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._hearing is not None
        self._hearing.__exit__(None, None, None)
        left = self._left_over(exc_type, exc, traceback)
        error = self._answer.lost if left is None else left
        if error is None:
            seq = await self.run.complete_turn(self._covered, self._answer.end(is_whole=exc is None))
            if self.is_stopped:
                self.run.report(TurnStopped(session_id=self.run.session.id, run_id=self.run.id, seq=seq))
            return True
        if not isinstance(error, Exception) or self._is_left_open(error):
            if error is exc:
                return False
            raise error
        cause = unwrap(error)
        self.run.report(TurnFailed(run_id=self.run.id, error=type(cause).__name__, exception=cause))
        await self.run.complete_turn(self._covered, self._answer.end_with(ERROR_TEXT))
        return True

    def _is_left_open(self, error: Exception) -> bool:
        """Tell whether another attempt has to go on: this one is over, or *error* says that a system gave no answer."""
        if self._answer.lost is not None or consists_of(error, self.run.out.refusal):
            return True
        return all(isinstance(leaf, UnavailableError) for leaf in leaves(error))

    def _left_over(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> BaseException | None:
        """Return the error with which the block ended, without what is a stop's doing; None if nothing else is left.

        An error that was made of the stop's cancellation is the stop's doing. One that was there before is not.
        """
        try:
            if self._scope.__exit__(exc_type, exc, traceback):
                return None
        except BaseExceptionGroup as rest:
            exc = rest
        if self.is_stopped and isinstance(exc, Exception) and is_because_of(exc, anyio.get_cancelled_exc_class()):
            return None
        return exc

    def _stop(self, seq: int) -> None:
        self.is_stopped = True
        inbox = self.run.inbox
        inbox.skip(seq)
        if inbox.read_to >= seq:  # Else something that has to be answered came before it.
            self._covered = seq
        self._scope.cancel()


@attrs.define(eq=False, kw_only=True)
class Run(raw.Run):
    """A run that can take chat turns."""

    stops: Stops = attrs.field(init=False, factory=Stops)
    _open_turn: int | None = attrs.field(init=False, default=None)
    _turn_tail: int = attrs.field(init=False, default=0)
    _is_first: bool = attrs.field(init=False, default=True)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.inbox.watch(self.stops.hear)

    def turns(self) -> AsyncIterator[Turn]:
        """Give one turn after another, from the committed cursor on.

        Ends when the run has been idle for ``idleTimeoutInSeconds`` and has left, on a ``close``, when the session was
        closed, and when the process is about to stop. Records that are no chat input are skipped and count as read.
        """
        return _Turns(self)

    async def next_turn(self) -> Turn | None:
        """Return the next of :meth:`turns`, or None after the last one."""
        while (message := await self.inbox.wait_with_idle_timeout(self.idle_timeout)) is not None:
            given = Input.parse(message.data)
            if given is None or not given.wants_turn:
                continue
            return None if given.trigger == CLOSE else await self._turn(message, given)
        return None

    @property
    def progress(self) -> Progress:
        """How far a run that takes over now need not go back: it gets the input of an open turn again."""
        taken = super().progress
        if self._open_turn is None:
            return taken
        return Progress(max(self.cursor, min(taken.cursor, self._open_turn - 1)), self._turn_tail)

    async def complete_turn(self, covered: int, chunks: Sequence[Chunk]) -> int:
        """Write the last *chunks* of a turn, and with them the turn-complete that covers ``in`` up to *covered*.

        Returns:
            The seq of the turn-complete.
        """
        siblings = {SESSION_IN_EVENT_ID: str(covered)}
        if (token := await self.session_token()) is not None:
            siblings[PUBLIC_ACCESS_TOKEN] = token
        seq = await self.out.write_in_pieces([*self.out.data_records(chunks), control_record(TURN_COMPLETE, siblings)])
        self.cursor = max(self.cursor, covered)
        self._open_turn = None
        return seq

    async def find_data(self, kind: str) -> Any:
        """Return the ``data`` of the newest chunk of type *kind* that counts in a completed turn, or None."""
        before, counts = self.out.tail, False
        oldest = before - SCAN_LIMIT
        while before > max(oldest, 0) and (records := await self.read_records_back(Io.OUT, before, SCAN_MESSAGES)):
            for record in records:
                counts = counts or record.control == TURN_COMPLETE
                chunk = as_object(record.data) if counts and record.kind is RecordKind.DATA else None
                if chunk is not None and chunk.get("type") == kind:
                    return chunk.get("data")
                if chunk is not None and chunk.get("type") == RESTART:
                    counts = False  # What came before it in its turn is void.
            before = records[-1].seq
        return None

    async def _turn(self, message: Message, given: Input) -> Turn:
        said = as_object(given.payload.get("message"))
        if given.trigger == REGENERATE:
            said = await self._last_said(message.seq)
        # Only the input that was first in line can have been answered in part.
        partial = await self._find_partial(message.seq) if self._is_first else PartialAnswer()
        self._turn_tail = self.record.start.out_tail if self._is_first else self.out.tail
        self._is_first, self._open_turn = False, message.seq
        return Turn(
            run=self,
            seq=message.seq,
            payload=given.payload,
            trigger=given.trigger,
            message=said,
            recovered=partial,
        )

    async def _find_partial(self, seq: int) -> PartialAnswer:
        recovered = await self.recovered()
        data = [message.data for message in recovered.messages]
        return find_partial(data, message_id(self.session, seq), is_whole=recovered.is_whole)

    async def _last_said(self, before: int) -> Mapping[str, Any] | None:
        """Return the newest user message on ``in`` before a seq, looking back at most a bounded way."""
        oldest = before - SCAN_LIMIT
        while before > max(oldest, 0):
            messages = await self.read_back(Io.IN, before, SCAN_MESSAGES)
            for message in messages:
                given = Input.parse(message.data)
                if given is not None and (said := given.user_message) is not None:
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

    def give_up(self, written: Iterable[Any], error_text: str, *, is_whole: bool) -> list[Any]:
        """End what is open in the message that was begun, if there is one. See :meth:`sessions_core.agents.Agents.give_up`."""
        return given_up(written, error_text, is_whole=is_whole)

    def task(self, name: str) -> Callable[[ChatTask], ChatTask]:
        """Register the decorated coroutine function as task *name*.

        Raises:
            ValueError: The name is taken.
        """
        return super().task(name)
