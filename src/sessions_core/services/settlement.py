"""Looking after what an ended run leaves behind.

How far a session had come is read from the log: the last turn-complete on ``out`` names the last ``in`` record that was
dealt with, and a run that ended by itself has recorded how far it had read. Whatever comes after that is unanswered. A
run that leaves unanswered input behind is continued by a new one. If runs keep failing at the very same input, it is
given up after ``maxAttempts``: the end of what was begun with an error in it and a turn-complete that covers it go on
``out``, so that readers go on and the next message gets its chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final, Protocol

import attrs

from sessions_core.domain.channel import (
    SESSION_IN_EVENT_ID,
    TURN_COMPLETE,
    Channel,
    Io,
    RecordKind,
    Tail,
    committed_by,
    control_record,
    data_record,
)
from sessions_core.domain.events import InputGivenUp, RunRecovered
from sessions_core.domain.guard import Guard
from sessions_core.domain.ids import own_part
from sessions_core.domain.run import REASON_CONTINUATION, Progress, RunRecord
from sessions_core.domain.session import Session
from sessions_core.domain.status import FAILED, RunStatus
from sessions_core.errors import GuardMismatchError
from sessions_core.ports.backlog import Backlog
from sessions_core.ports.channel_log import ChannelLog
from sessions_core.ports.clock import Clock
from sessions_core.ports.observer import Observer
from sessions_core.ports.session_store import SessionStore
from sessions_core.services.run_manager import RunManager
from sessions_core.services.unfinished import read_unfinished

SCAN_RECORDS: Final = 64
SETTLE_ATTEMPTS: Final = 16
FIRST_BACKOFF: Final = timedelta(seconds=1)
LONGEST_BACKOFF: Final = timedelta(minutes=1)
GIVEN_UP_TEXT: Final = "The agent failed repeatedly and could not answer this message."


def failures_at(run: RunRecord, progress: Progress) -> int:
    """Count the runs in a row that did not get past the cursor where *run* ended, itself included.

    A run that was cut off from outside is no failure, but does not forgive those before it.
    """
    if progress.cursor != run.start.cursor:
        return int(run.status in FAILED)
    return run.failures + (run.status is not RunStatus.CANCELED)


def backoff(failures: int) -> timedelta:
    """Return how long to wait before the next try: nothing after the first failure, then 1 s, 2 s, 4 s … 60 s."""
    if failures < 2:
        return timedelta()
    return min(FIRST_BACKOFF * (1 << min(failures - 2, 16)), LONGEST_BACKOFF)


class GiveUp(Protocol):
    """Makes what ends an answer that is given up: what is on ``out`` is in the words of the agents, unknown here."""

    def __call__(self, written: Iterable[Any], error_text: str, *, is_whole: bool) -> Sequence[Any]:
        """Return the data that goes on ``out`` after *written*, which lacks its beginning unless *is_whole*."""
        ...


@attrs.define(kw_only=True)
class Settlement:
    """Finds out how far a session had come, and settles ended runs."""

    give_up: GiveUp
    store: SessionStore
    backlog: Backlog
    log: ChannelLog
    run_manager: RunManager
    clock: Clock
    observer: Observer

    async def progress(self, session: Session, start: Progress) -> Progress:
        """Return how far the session has come since *start*."""
        out = session.channel(Io.OUT)
        tail = await self.log.tail(out)
        cursor = await self.find_cursor(out, start, tail.next_seq)
        last = (await self.log.tail(session.channel(Io.IN))).next_seq - 1
        return Progress(min(cursor, last), tail.next_seq)

    async def find_cursor(self, out: Channel, start: Progress, out_tail: int) -> int:
        """Return what the newest turn-complete on *out* between *start* and *out_tail* commits, or else *start*'s cursor.

        Nobody has compared it with ``in`` yet: it may name a record that is not there.
        """
        before = out_tail
        while before > start.out_tail:
            limit = min(SCAN_RECORDS, before - start.out_tail)
            records = await self.log.read_back(out, before, limit)
            committed = next((c for record in records if (c := committed_by(record)) is not None), None)
            if committed is not None or not records:
                return max(start.cursor, committed if committed is not None else -1)
            before = records[-1].seq
        return start.cursor

    async def settle(self, run: RunRecord) -> None:
        """Look after *run*, which has ended: continue it if it left unanswered input, else leave ``in`` idle."""
        session = await self.store.find(run.environment.id, run.session_id)
        if session is None or session.current_run_id != run.id or session.refusal(self.clock.now()):
            await self.backlog.settle(run.id, None)
            return
        progress = await self.progress(session, run.end or run.start)
        failures = failures_at(run, progress)
        for _ in range(SETTLE_ATTEMPTS):
            tail = await self.log.tail(session.channel(Io.IN))
            unanswered = await self._find_unanswered(session, progress.cursor, tail)
            if unanswered is not None:
                if failures < run.config.max_attempts:
                    await self._continue(session, run, progress, failures)
                    return
                given_up = await self._give_up(session, unanswered, (run.end or run.start).out_tail)
                if given_up is None:
                    return
                progress, failures = given_up, 0
            elif await self._idle(session, run, tail):
                break
        await self.backlog.settle(run.id, progress)

    async def _find_unanswered(self, session: Session, cursor: int, tail: Tail) -> int | None:
        """Return the seq of the first input after *cursor*. A command is none: in some logs a change of the guard is one."""
        start = cursor + 1
        while start < tail.next_seq:
            records = (await self.log.read(session.channel(Io.IN), start, SCAN_RECORDS)).records
            if not records:
                return None
            found = next((record.seq for record in records if record.kind is not RecordKind.COMMAND), None)
            if found is not None:
                return found
            start = records[-1].seq + 1
        return None

    async def _continue(self, session: Session, run: RunRecord, progress: Progress, failures: int) -> None:
        pause = backoff(failures)
        after = self.clock.now() + pause if pause else None
        # What a dead run has written of an answer is recovered by the next one, so that one has to look there again.
        seen = (run.end or run.start).out_tail
        ended = attrs.evolve(run, end=attrs.evolve(progress, out_tail=seen))
        successor = self.run_manager.successor(session, ended, REASON_CONTINUATION, failures=failures, after=after)
        if await self.run_manager.claim(session, successor):
            self.observer(RunRecovered(run_id=run.id, continuation=successor.id, failures=failures))
        await self.backlog.settle(run.id, progress)

    async def _idle(self, session: Session, run: RunRecord, tail: Tail) -> bool:
        idle = Guard.idle(run.version)
        if not tail.guard.rises_to(idle):
            return True
        channel = session.channel(Io.IN)
        return (await self.log.set_guard(channel, idle, expect=tail.guard, if_tail=tail.next_seq)).done

    async def _give_up(self, session: Session, poison: int, oldest: int) -> Progress | None:
        """Answer the input up to *poison* with an error, under whatever guard ``out`` has; part ids make it once.

        What has been written of an answer after seq *oldest* of ``out`` is ended.

        Returns:
            The progress after that; None if somebody else took the session on meanwhile, or closed it.
        """
        out = session.channel(Io.OUT)
        tail = await self.log.tail(out)
        found = await read_unfinished(self.log, out, before=tail.next_seq, oldest=oldest)
        ending = self.give_up([record.data for record in found.records], GIVEN_UP_TEXT, is_whole=found.is_whole)
        records = (
            *(data_record(data, own_part(f"given-up:{poison}:{number}")) for number, data in enumerate(ending)),
            control_record(TURN_COMPLETE, {SESSION_IN_EVENT_ID: str(poison)}, own_part(f"given-up:{poison}:complete")),
        )
        try:
            appended = await self.log.append(out, records, guard=tail.guard)
        except GuardMismatchError:
            return None
        self.observer(InputGivenUp(session_id=session.id, cursor=poison))
        return Progress(poison, appended[-1].seq + 1)
