"""The session as run manager: it keeps exactly one run current, and replaces a dead one.

How this works
--------------
Claim first, dispatch second. A claim is one transaction that stores the run record and makes it the session's current
run, guarded by the version that was read. Only the winner dispatches. A crash between the two leaves a pending run,
which the next probe or the sweep dispatches again; so no run is started in vain and no lock is held across a dispatch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import Final

import anyio
import attrs

from sessions_core.domain.bounded import BoundedDict
from sessions_core.domain.channel import Channel, Io, NewRecord
from sessions_core.domain.claim import Claim
from sessions_core.domain.events import ClaimLost, RunClaimed, RunEnded, SystemFailed
from sessions_core.domain.guard import Guard
from sessions_core.domain.ids import RUN_PREFIX, RunId
from sessions_core.domain.run import REASON_CONTINUATION, Holding, Progress, RunRecord, hand_over_notice, next_run
from sessions_core.domain.session import Session
from sessions_core.domain.status import FAILED, WAITING_FOR_WORKER, RunStatus
from sessions_core.errors import (
    ChannelUnavailableError,
    ClaimExhaustedError,
    DispatcherUnavailableError,
    GuardMismatchError,
    SessionNotFoundError,
    StoreUnavailableError,
)
from sessions_core.ports.channel_log import ChannelLog
from sessions_core.ports.clock import Clock, Ids
from sessions_core.ports.observer import Observer
from sessions_core.ports.run_dispatcher import RunDispatcher
from sessions_core.ports.run_store import RunStore
from sessions_core.ports.session_store import SessionStore

CLAIM_ATTEMPTS: Final = 3
FENCE_ATTEMPTS: Final = 4
KNOWN_RUNS: Final = 1000
FINISH_SECONDS: Final = 10.0
"""How long a claim and its dispatch may go on after their caller was cancelled."""


@attrs.frozen(kw_only=True)
class HandOver:
    """Outcome of a hand-over.

    Attributes:
        run_id: The session's current run after the call.
        swapped: Whether this call put it there; False if another was faster.
    """

    run_id: RunId
    swapped: bool


@attrs.define(kw_only=True)
class RunManager:
    """Ensures that a session has a live run, and swaps it on request.

    Attributes:
        dispatched: Runs as they were when this process dispatched them, for whoever takes one up here: perhaps out of date,
            and perhaps forgotten.
    """

    store: SessionStore
    runs: RunStore
    log: ChannelLog
    dispatcher: RunDispatcher
    clock: Clock
    ids: Ids
    observer: Observer
    dispatched: BoundedDict[RunId, RunRecord] = attrs.field(init=False, factory=lambda: BoundedDict(KNOWN_RUNS))

    def new_run_id(self) -> RunId:
        """Return a fresh run id."""
        return RunId(RUN_PREFIX + self.ids.new())

    async def ensure_run(self, session: Session, *, left: int = 0) -> Session:
        """Return the session with a current run that is alive, claiming and dispatching a new one if necessary.

        Args:
            session: A recent read; may be stale.
            left: Runs up to this version are known to have left, whatever their record says.

        Raises:
            ClosedError: The session is closed or expired.
            ClaimExhaustedError: Others kept changing the run.
            SessionNotFoundError: The session is gone.
        """
        for _ in range(CLAIM_ATTEMPTS):
            if refusal := session.refusal(self.clock.now()):
                raise refusal
            current = await self.find_current(session)
            if current is not None and current.is_alive and session.current_run_version > left:
                await self._dispatch_if_waiting(current)
                return session
            run = next_run(
                session,
                self.new_run_id(),
                reason=REASON_CONTINUATION,
                now=self.clock.now(),
                previous=current if session.current_run_version > left else await self._as_it_left(session, current),
                failures=_failures_after(current),
            )
            if await self.claim(session, run):
                return attrs.evolve(session, current_run_id=run.id, current_run_version=run.version)
            session = await self._read_again(session)
        raise ClaimExhaustedError(session.key, CLAIM_ATTEMPTS)

    async def claim(self, session: Session, run: RunRecord) -> bool:
        """Make *run* current, end its predecessor's right to write, and dispatch it if it is due.

        Args:
            session: The row as it was read; its version is the one that must still hold.
            run: The successor.

        Returns:
            False if another was faster; then nothing was done.

        Raises:
            StoreUnavailableError: No answer in time; the claim may have happened.
        """
        return await self._claim(session, run, self.store.claim_run(run, expected_version=run.version - 1))

    async def hand_over(self, session: Session, run: RunRecord, *, calling: RunId, epoch: int | None) -> bool:
        """Claim *run* if *calling* is still current (and *epoch*, if given, still the latest), and announce it on ``out``.

        Otherwise like :meth:`claim`.
        """
        claim = self.store.claim_run(run, expected_version=run.version - 1, expected_run=calling, expected_epoch=epoch)
        return await self._claim(session, run, claim, (hand_over_notice(run),))

    async def _claim(
        self, session: Session, run: RunRecord, claim: Awaitable[Claim], last_words: Sequence[NewRecord] = ()
    ) -> bool:
        with anyio.move_on_after(FINISH_SECONDS, shield=True):
            if await claim is Claim.LOST:
                self.observer(ClaimLost(environment_id=run.environment.id, session_id=run.session_id))
                return False
            self.observer(
                RunClaimed(
                    environment_id=run.environment.id, session_id=run.session_id, run_id=run.id, reason=run.reason
                )
            )
            await self._fence(session, run, last_words)
            await self.dispatch(run)
            return True
        raise StoreUnavailableError

    async def _fence(self, session: Session, run: RunRecord, last_words: Sequence[NewRecord]) -> None:
        """End the right to write of every attempt before *run*. What fails here is done by the new run's beginning.

        The row may be a stale read, and an attempt begins before it takes ``out``: a guard that is not the expected one
        is believed once the row, read again, tells that it cannot be *run*'s own.
        """
        out, epoch, held = session.channel(Io.OUT), session.epoch, Guard.live(session.epoch)
        try:
            for _ in range(FENCE_ATTEMPTS):
                actual = await self._end_epoch(out, held, Guard.idle(epoch), last_words)
                if actual is None or actual.is_sealed or not (last_words or actual.is_live):
                    return
                last = await self._last_epoch_before(run)
                if last is None:
                    await self._say(out, actual, last_words)
                    return
                epoch, held = last, actual
        except (ChannelUnavailableError, StoreUnavailableError) as error:
            self.observer(SystemFailed(step="fence", error=str(error)))

    async def _end_epoch(
        self, out: Channel, held: Guard, final: Guard, last_words: Sequence[NewRecord]
    ) -> Guard | None:
        """Append *last_words* under the guard *held* and raise it to *final*; return the guard that is in the way, if any."""
        try:
            if last_words:
                await self.log.append(out, last_words, guard=held)
            change = await self.log.set_guard(out, final, expect=held)
        except GuardMismatchError as error:
            return error.actual
        return None if change.actual == final else change.actual

    async def _say(self, out: Channel, guard: Guard, last_words: Sequence[NewRecord]) -> None:
        """Append *last_words* under whatever guard there is. The new run says them too, unless it is replaced before that."""
        for _ in range(FENCE_ATTEMPTS if last_words else 0):
            try:
                await self.log.append(out, last_words, guard=guard)
            except GuardMismatchError as error:
                guard = error.actual
            else:
                return

    async def _last_epoch_before(self, run: RunRecord) -> int | None:
        """Return the epoch of the last attempt before *run*'s first; None if that has begun, or *run* has been replaced."""
        session = await self.store.find(run.environment.id, run.session_id)
        stored = await self.runs.find(run.environment.id, run.id)
        if session is None or session.current_run_id != run.id or stored is None or stored.attempt:
            return None
        return session.epoch

    async def dispatch(self, run: RunRecord) -> None:
        """Dispatch *run* if it is due. An engine that is down is no failure: the sweep will try again."""
        if run.dispatch_after is not None and run.dispatch_after > self.clock.now():
            return
        self.dispatched[run.id] = run
        try:
            await self.dispatcher.dispatch(run)
        except DispatcherUnavailableError as error:
            if error.was_asked:
                self.observer(SystemFailed(step="dispatch", error=str(error)))
        else:
            await self.runs.mark_dispatched(run.id)

    async def withdraw(self, run: RunRecord) -> None:
        """End *run* if it has not begun: it never may any more, as it was replaced or its session is over.

        Its engine is told, so that it need not keep it. One that cannot be reached is no failure: whoever begins the run is
        refused.
        """
        if run.attempt or not await self.runs.finish(Holding(run.id, 0), RunStatus.CANCELED):
            return
        self.observer(RunEnded(run_id=run.id, status=RunStatus.CANCELED))
        if run.dispatched_at is None:
            return
        try:
            await self.dispatcher.cancel(run.id)
        except DispatcherUnavailableError as error:
            self.observer(SystemFailed(step="cancel", error=str(error)))

    def successor(
        self, session: Session, previous: RunRecord, reason: str, *, failures: int = 0, after: datetime | None = None
    ) -> RunRecord:
        """Make (but not store) the run that goes on where *previous* stood."""
        return next_run(
            session,
            self.new_run_id(),
            reason=reason,
            now=self.clock.now(),
            previous=previous,
            failures=failures,
            dispatch_after=after,
        )

    async def _as_it_left(self, session: Session, run: RunRecord | None) -> RunRecord | None:
        """Return *run* with the progress that its leaving proves, which its record may not tell yet.

        A run leaves only when it has read everything, and nothing can be appended to ``in`` until another is claimed. Once
        it is settled its record tells as much.
        """
        if run is None or (run.settled_at is not None and run.end is not None):
            return run
        read_to = (await self.log.tail(session.channel(Io.IN))).next_seq - 1
        known = run.end or run.start
        return attrs.evolve(run, end=Progress(max(read_to, known.cursor), known.out_tail))

    async def find_current(self, session: Session) -> RunRecord | None:
        """Return the session's current run."""
        if session.current_run_id is None:
            return None
        return await self.runs.find(session.environment.id, session.current_run_id)

    async def _dispatch_if_waiting(self, run: RunRecord) -> None:
        if run.dispatched_at is None and run.status in WAITING_FOR_WORKER:
            await self.dispatch(run)

    async def _read_again(self, session: Session) -> Session:
        fresh = await self.store.find(session.environment.id, session.id)
        if fresh is None:
            raise SessionNotFoundError(session.id)
        return fresh


def _failures_after(ended: RunRecord | None) -> int:
    """Count on where nobody has settled the ended run yet. If it got further, its successor's own end will show that."""
    if ended is None or ended.settled_at is not None or ended.status not in FAILED:
        return 0
    return ended.failures + 1
