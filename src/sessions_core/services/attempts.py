"""What an attempt of a run may do, for whoever carries it out: this library in its own process, or a foreign engine.

An attempt begins, takes ``out`` over, writes, tells that it lives, and ends. Its epoch is its right to all of that: once a
later attempt has begun, or the run was replaced, every step is refused with ``StaleRunError``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from sessions_core.domain.bounded import BoundedDict
from sessions_core.domain.channel import Appended, Channel, Io, NewRecord
from sessions_core.domain.events import RunBegun, RunEnded
from sessions_core.domain.guard import Guard
from sessions_core.domain.ids import EnvironmentId, RunId
from sessions_core.domain.run import Holding, Progress, RunRecord, hand_over_notice
from sessions_core.domain.session import Session
from sessions_core.domain.status import RunStatus
from sessions_core.errors import AttemptBegunError, RunNotFoundError, StaleRunError
from sessions_core.ports.clock import Clock
from sessions_core.ports.observer import Observer
from sessions_core.ports.run_store import RunStore
from sessions_core.ports.session_store import SessionStore
from sessions_core.services.channel_service import ChannelService
from sessions_core.services.settlement import Settlement

GUARD_ATTEMPTS: Final = 16
KNOWN_HOLDERS: Final = 10_000


@attrs.frozen(kw_only=True)
class Begun:
    """An attempt that has begun and holds ``out``.

    Attributes:
        cursor: The last ``in`` record that is committed; -1 if none is.
    """

    run: RunRecord
    session: Session
    cursor: int


@attrs.frozen(kw_only=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        status: A final status.
        last_seq: The last ``in`` record that it has dealt with, if it knows more than its turn-completes tell.
        error: A short text about a failure, without secrets.
    """

    status: RunStatus
    last_seq: int | None = None
    error: str | None = None


@attrs.frozen
class Holder:
    """An attempt that has held its epoch at some time, and its session as it was then."""

    run: RunRecord
    session: Session


@attrs.define(kw_only=True)
class Attempts:
    """Begins, serves and ends attempts."""

    store: SessionStore
    runs: RunStore
    channels: ChannelService
    settlement: Settlement
    clock: Clock
    observer: Observer
    _holders: BoundedDict[tuple[EnvironmentId, RunId], Holder] = attrs.field(
        init=False, factory=lambda: BoundedDict[tuple[EnvironmentId, RunId], Holder](KNOWN_HOLDERS)
    )

    async def begin(self, environment_id: EnvironmentId, run_id: RunId, attempt: int) -> Begun:
        """Begin attempt number *attempt* of a run that a foreign engine carries out.

        Of concurrent calls with the same *attempt* at most one begins, so a request that comes twice does no harm.

        Raises:
            RunNotFoundError: This environment has no such run.
            AttemptBegunError: That attempt has begun already, or the one before it has not.
            StaleRunError: The run has ended, or is not the session's current one; nobody may carry it out any more.
            ClosedError: The session is closed or expired.
        """
        known = await self._find(environment_id, run_id)
        run = await self.runs.begin(run_id, attempt)
        if run is None:
            raise await self._why_not(known, attempt)
        self.observer(RunBegun(run_id=run_id, attempt=run.attempt, epoch=run.epoch))
        out_tail = await self.take_over(run)
        session = await self.session_of(run)
        out_tail = max(out_tail, await self.announce(run, session))
        cursor = await self.find_cursor(run, out_tail)
        in_tail = (await self.channels.tail(in_of(run))).next_seq
        return Begun(run=run, session=session, cursor=min(cursor, in_tail - 1))

    async def beat(self, environment_id: EnvironmentId, run_id: RunId, epoch: int) -> RunRecord:
        """Tell that the attempt under *epoch* lives; return its run as it began.

        Raises:
            RunNotFoundError: This environment has no such run.
            StaleRunError: The attempt is over; whoever carries it out must stop.
        """
        run = (await self._holder(environment_id, run_id, epoch)).run
        if run_id in await self.runs.beat([Holding(run_id, run.attempt)]):
            raise StaleRunError(run_id)
        return run

    async def append(
        self, environment_id: EnvironmentId, run_id: RunId, epoch: int, records: Sequence[NewRecord]
    ) -> list[Appended]:
        """Append *records* to ``out`` as the attempt under *epoch*, all or none.

        Raises:
            RunNotFoundError: This environment has no such run.
            StaleRunError: The attempt is over.
            ClosedError: The session is closed or expired.
            RecordTooLargeError: Over the log's limit.
        """
        holder = await self._holder(environment_id, run_id, epoch)
        return await self.channels.append(holder.session, Io.OUT, records, epoch=epoch)

    async def complete(self, environment_id: EnvironmentId, run_id: RunId, epoch: int, outcome: Outcome) -> None:
        """End the attempt under *epoch* and look after what it leaves: unanswered input starts a continuation.

        Raises:
            RunNotFoundError: This environment has no such run.
            StaleRunError: The attempt is over already.
        """
        run = (await self._holder(environment_id, run_id, epoch)).run
        end = None if outcome.last_seq is None else await self._progress(run, outcome.last_seq)
        if not await self.end(run, outcome.status, end=end, error=outcome.error):
            raise StaleRunError(run_id)

    async def end(
        self,
        run: RunRecord,
        status: RunStatus,
        *,
        end: Progress | None = None,
        error: str | None = None,
        exception: BaseException | None = None,
        settle: bool = True,
    ) -> bool:
        """End the latest attempt of *run*; return False, with nothing done, if it is not the latest or has ended.

        Args:
            run: As its attempt began.
            status: A final status.
            end: How far it had come, if it ended by itself.
            error: A short text about a failure, without secrets.
            exception: The failure, for the observer alone.
            settle: Look at once after what it leaves, instead of leaving that to the sweep.
        """
        if not await self.runs.finish(Holding(run.id, run.attempt), status, end=end, error=error):
            return False
        self.observer(RunEnded(run_id=run.id, status=status, error=error, exception=exception))
        if settle:
            await self.settlement.settle(attrs.evolve(run, status=status, end=end, error=error))
        # The next claim would do it, but there somebody waits.
        await self.channels.log.set_guard(out_of(run), Guard.idle(run.epoch), expect=Guard.live(run.epoch))
        return True

    async def decline(self, run: RunRecord) -> bool:
        """End a run that may not begin because its session is closed or has another run; return whether that is so."""
        session = await self.store.find(run.environment.id, run.session_id)
        over = session is None or session.current_run_id != run.id or session.refusal(self.clock.now()) is not None
        if over and await self.runs.finish(Holding(run.id, run.attempt), RunStatus.CANCELED):
            self.observer(RunEnded(run_id=run.id, status=RunStatus.CANCELED))
        return over

    async def take_over(self, run: RunRecord) -> int:
        """Raise the guard of ``out`` to the epoch of *run*'s attempt; return the tail of ``out``.

        Raises:
            StaleRunError: A later attempt was faster.
        """
        out, mine = out_of(run), Guard.live(run.epoch)
        # So it was left by the attempt before, or by the claim, unless they were cut off.
        expected = Guard.idle(run.epoch - 1)
        for _ in range(GUARD_ATTEMPTS):
            change = await self.channels.log.set_guard(out, mine, expect=expected)
            if change.done:
                return change.tail
            expected = change.actual
            if not expected.rises_to(mine):
                break
        raise StaleRunError(run.id)

    async def find_cursor(self, run: RunRecord, out_tail: int) -> int:
        """Return the last ``in`` record that is committed. Nobody has compared it with ``in`` yet."""
        return await self.settlement.find_cursor(out_of(run), run.start, out_tail)

    async def session_of(self, run: RunRecord) -> Session:
        """Return the session of *run*.

        Raises:
            StaleRunError: It is gone.
        """
        session = await self.store.find(run.environment.id, run.session_id)
        if session is None:
            raise StaleRunError(run.id)
        return session

    async def announce(self, run: RunRecord, session: Session) -> int:
        """Say on ``out`` that *run* has taken over, if that is so; return the seq after the announcement, or else 0.

        Done by whoever handed over, unless that process died: the part id makes it once.
        """
        if not run.is_handed_over:
            return 0
        (notice,) = await self.channels.append(session, Io.OUT, (hand_over_notice(run),), epoch=run.epoch)
        return notice.seq + 1

    async def _why_not(self, run: RunRecord, attempt: int) -> Exception:
        over = await self.decline(run)
        fresh = await self._find(run.environment.id, run.id)
        session = await self.store.find(run.environment.id, run.session_id)
        refusal = None if session is None else session.refusal(self.clock.now())
        if refusal is not None:
            return refusal
        return StaleRunError(run.id) if over or not fresh.is_alive else AttemptBegunError(run.id, attempt)

    async def _holder(self, environment_id: EnvironmentId, run_id: RunId, epoch: int) -> Holder:
        """Return the attempt of the run that has, or had, *epoch*. It is remembered: no other attempt ever gets that epoch."""
        known = self._holders.get((environment_id, run_id))
        if known is not None and known.run.epoch == epoch:
            return known
        run = await self._find(environment_id, run_id)
        if run.epoch != epoch:
            raise StaleRunError(run_id)
        holder = self._holders[environment_id, run_id] = Holder(run, await self.session_of(run))
        return holder

    async def _find(self, environment_id: EnvironmentId, run_id: RunId) -> RunRecord:
        run = await self.runs.find(environment_id, run_id)
        if run is None:
            raise RunNotFoundError(run_id)
        return run

    async def _progress(self, run: RunRecord, last_seq: int) -> Progress:
        """Return how far the attempt says it has come, but never past the tail of ``in``: what comes later is not dealt with."""
        out_tail = (await self.channels.tail(out_of(run))).next_seq
        in_tail = (await self.channels.tail(in_of(run))).next_seq
        cursor = max(await self.find_cursor(run, out_tail), last_seq)
        return Progress(min(cursor, in_tail - 1), out_tail)


def in_of(run: RunRecord) -> Channel:
    """Return the channel that *run* reads."""
    return Channel(run.environment.id, run.key, Io.IN)


def out_of(run: RunRecord) -> Channel:
    """Return the channel that *run* writes."""
    return Channel(run.environment.id, run.key, Io.OUT)
