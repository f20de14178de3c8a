"""Carrying out one run: begin, guard, cursor, task, end.

The order at the start is fixed. ``begin`` takes a fresh epoch, and fails for a run that is no longer current. Then the
guard of ``out`` is raised to the epoch, so that whoever wrote before is refused from now on. Only then is ``out`` read
for the committed cursor: nobody can move it any more but us. Then the task runs.

Somebody waits for the first output, so nothing is asked twice on the way to it: what the process has just dispatched is
known, a guard that was raised tells the tail, and messages arrive while the session's row is read.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Final

import anyio
import attrs
from anyio.lowlevel import checkpoint_if_cancelled

from sessions_core.agents import Agents
from sessions_core.confining import confined
from sessions_core.domain.channel import Channel, Io, Record
from sessions_core.domain.events import RunBegun, SystemFailed
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import Holding, Progress, RunRecord
from sessions_core.domain.session import Session
from sessions_core.domain.status import RunStatus
from sessions_core.errors import ClosedError, StaleRunError, UnavailableError
from sessions_core.inbox import PENDING_RECORDS, Inbox
from sessions_core.outbox import Outbox
from sessions_core.ports.observer import Observer
from sessions_core.ports.run_store import RunStore
from sessions_core.services.attempts import Attempts
from sessions_core.services.channel_service import ChannelService
from sessions_core.services.session_service import SessionService
from sessions_core.services.token_issuer import TokenIssuer
from sessions_core.unwrapping import consists_of, unwrap

FINISH_SECONDS: Final = 10.0
BEGIN_PAUSE_SECONDS: Final = 1.0


@attrs.frozen
class Ending:
    """How a task ended."""

    status: RunStatus
    error: str | None = None
    progress: Progress | None = None
    exception: BaseException | None = None


@attrs.define(kw_only=True)
class RunExecutor:
    """Runs tasks of *agents* for runs that an engine has handed to this process.

    Attributes:
        dispatched: Records of runs that this process has dispatched itself, perhaps out of date; taken out when used.
    """

    agents: Agents
    runs: RunStore
    channels: ChannelService
    sessions: SessionService
    attempts: Attempts
    dispatched: MutableMapping[RunId, RunRecord]
    tokens: TokenIssuer
    observer: Observer
    draining: anyio.Event
    _held: dict[RunId, tuple[Holding, anyio.CancelScope]] = attrs.field(init=False, factory=dict)
    _inboxes: set[Inbox] = attrs.field(init=False, factory=set)

    @property
    def held(self) -> tuple[RunId, ...]:
        """The runs that are being carried out here."""
        return tuple(self._held)

    async def execute(self, run_id: RunId) -> None:
        """Carry out the next attempt of the run, from beginning to settlement. Returns when it has ended.

        A run that may not begin any more (replaced, closed, begun elsewhere) is left alone.
        """
        begun = await self._begin(run_id)
        if begun is None:
            return
        self.observer(RunBegun(run_id=run_id, attempt=begun.attempt, epoch=begun.epoch))
        ending = Ending(RunStatus.CANCELED)
        try:
            ending = await self._carry_out(begun)
        finally:
            # Also when this process stops: a run that was cut off by us is no failure of its task.
            with anyio.move_on_after(FINISH_SECONDS, shield=True):
                await self._end(begun, ending)

    def holdings(self) -> tuple[Holding, ...]:
        """Return the attempts that are being carried out here. Any thread may ask."""
        return tuple(holding for holding, _ in tuple(self._held.values()))

    def lose(self, lost: frozenset[RunId]) -> None:
        """Stop those of the runs held here that are *lost*: replaced, begun anew or ended elsewhere."""
        for run_id in lost & self._held.keys():
            self._held[run_id][1].cancel()

    def drain(self) -> None:
        """Ask all tasks to end: waiting inboxes return None, busy turns go on to their end."""
        self.draining.set()
        for inbox in self._inboxes:
            inbox.wake()

    async def _begin(self, run_id: RunId) -> RunRecord | None:
        """Begin the next attempt, or return None if there is nothing to carry out.

        A store that gives no answer is asked again: the engine believes that we have the run, so nobody else would
        come back to one that has not begun. A run that executes is left to whoever has begun it, unless that may have been
        ourselves, a moment ago: if that one has died, the sweep replaces the run.
        """
        known, was_tried = self.dispatched.pop(run_id, None), False
        while True:
            try:
                run = known or await self.runs.get(run_id)
                if self.agents.find(run.task) is None or (run.status is RunStatus.EXECUTING and not was_tried):
                    return None
                if run.has_waited_too_long(self.attempts.clock.now()):
                    await self.attempts.end(run, RunStatus.EXPIRED, error="waited longer than its ttl")
                    return None
                begun = await self.runs.begin(run_id, run.attempt + 1)
                if begun is None and known is None:
                    await self.attempts.decline(run)
            except UnavailableError as error:
                was_tried = True
                self.observer(SystemFailed(step="begin", error=str(error)))
                await anyio.sleep(BEGIN_PAUSE_SECONDS)
            else:
                if begun is not None or known is None:
                    return begun
            known = None  # It is out of date, or may be.

    async def _carry_out(self, run: RunRecord) -> Ending:
        scope = anyio.CancelScope()
        self._held[run.id] = (Holding(run.id, run.attempt), scope)
        ending = Ending(RunStatus.CANCELED)
        try:
            with scope:
                ending = await confined(self._attempt(run))
        except Exception as error:  # noqa: BLE001 - a store that fails ends the run, not this process
            cause = unwrap(error)
            return _ending_of(cause, cause)
        finally:
            del self._held[run.id]
        return ending

    async def _attempt(self, run: RunRecord) -> Ending:
        out_tail = await self.attempts.take_over(run)
        cursor = await self.attempts.find_cursor(run, out_tail)
        inbox_channel = Channel(run.environment.id, run.key, Io.IN)
        after = cursor if cursor >= 0 else None
        ending = Ending(RunStatus.CANCELED)
        async with self.channels.subscribe(inbox_channel, after) as reading, anyio.create_task_group() as tasks:
            initial_tail = reading.next_seq
            cursor = min(cursor, reading.position - 1)

            async def leave(read_to: int) -> bool:
                return await self.channels.gate.leave(inbox_channel, run.version, read_to=read_to)

            async def read_again(start: int) -> Sequence[Record]:
                return (await self.channels.log.read(inbox_channel, start, PENDING_RECORDS)).records

            inbox = Inbox(cursor, reading, read_again, leave, self.draining)
            tasks.start_soon(inbox.pump)  # the first message comes while the session's row is read
            self._inboxes.add(inbox)
            try:
                session = await self.attempts.session_of(run)
                out_tail = max(out_tail, await self.attempts.announce(run, session))
                ending = await self._call(run, session, Progress(cursor, out_tail), inbox, initial_tail)
            finally:
                self._inboxes.discard(inbox)
            tasks.cancel_scope.cancel()
        return ending

    async def _call(
        self, run: RunRecord, session: Session, progress: Progress, inbox: Inbox, initial_tail: int
    ) -> Ending:
        handle = self.agents.run_class(
            record=run,
            session=session,
            inbox=inbox,
            out=Outbox(progress.out_tail, session, run.epoch, self.channels),
            cursor=progress.cursor,
            sessions=self.sessions,
            channels=self.channels,
            tokens=self.tokens,
        )
        task = self.agents.find(run.task)
        assert task is not None
        limit = run.config.members.get("maxDuration")
        try:
            with anyio.move_on_after(limit) as deadline:
                await task(handle)
        except BaseException as error:  # noqa: BLE001 - whatever a task raises ends its run, not this process
            # A cancellation that is not ours comes from something that the task awaited: a failure like all others.
            await checkpoint_if_cancelled()
            return _ending_of(error, handle.out.refusal)
        if deadline.cancelled_caught:
            return Ending(RunStatus.TIMED_OUT, f"took longer than {limit} s")
        if self.draining.is_set():
            return Ending(RunStatus.CANCELED, progress=handle.progress)
        return Ending(RunStatus.COMPLETED_SUCCESSFULLY, progress=handle.ended_at(initial_tail))

    async def _end(self, run: RunRecord, ending: Ending) -> None:
        await self.attempts.end(
            run,
            ending.status,
            end=ending.progress,
            error=ending.error,
            exception=ending.exception,
            settle=not self.draining.is_set(),
        )


def _ending_of(error: BaseException, refusal: BaseException | None) -> Ending:
    """Tell an attempt whose writes were refused from one that failed.

    The same errors about another session, which the task may well meet, are failures like all others.
    """
    is_refused = consists_of(error, refusal)
    if is_refused and isinstance(refusal, StaleRunError):
        return Ending(RunStatus.CANCELED, str(refusal))
    if is_refused and isinstance(refusal, ClosedError):
        return Ending(RunStatus.COMPLETED_SUCCESSFULLY, str(refusal))
    cause = unwrap(error)
    return Ending(RunStatus.COMPLETED_WITH_ERRORS, type(cause).__name__, exception=cause)
