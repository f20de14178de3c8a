"""Appending to, reading and following channels."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
import attrs

from sessions_core.domain.bounded import BoundedDict
from sessions_core.domain.channel import (
    TURN_COMPLETE,
    Appended,
    Batch,
    Channel,
    Io,
    NewRecord,
    Tail,
    data_record,
    last_visible,
    sanitise_input,
)
from sessions_core.domain.direct import NO_DEMAND, Demand, Tenure
from sessions_core.domain.events import RecordsAppended
from sessions_core.domain.guard import SEALED, UNTOUCHED, Guard
from sessions_core.domain.ids import RESERVED_PARTS, PartId
from sessions_core.domain.session import Session
from sessions_core.errors import (
    ClaimExhaustedError,
    GuardMismatchError,
    InvalidError,
    SessionClosedError,
    StaleRunError,
)
from sessions_core.ports.channel_log import ChannelLog
from sessions_core.ports.clock import Clock, Ids
from sessions_core.ports.observer import Observer
from sessions_core.services.closing import Closing
from sessions_core.services.hub import Hub, Push, Reader
from sessions_core.services.input_gate import InputGate
from sessions_core.services.wait_service import WaitService

APPEND_ATTEMPTS: Final = 8
KNOWN_GUARDS: Final = 20_000
PEEK_RECORDS: Final = 16
READ_RECORDS: Final = 1000


@attrs.define(eq=False)
class Reading:
    """A subscription to one channel.

    Attributes:
        gap: The first kept seq, if records after the one named by the reader are no longer kept; else None.
        settled: Whether the channel ended with a completed turn when asked; then the reading ends with its tail.
    """

    gap: int | None
    settled: bool
    _end: int
    _reader: Reader

    @property
    def position(self) -> int:
        """The seq that it wants next."""
        return self._reader.position

    @property
    def next_seq(self) -> int:
        """The seq that the channel's next record will get, as far as is known."""
        return self._reader.next_seq

    @property
    def timestamp(self) -> int:
        """Arrival of the channel's last record in Unix milliseconds, as far as is known."""
        return self._reader.timestamp

    @property
    def has_reached_end(self) -> bool:
        """Whether everything has been delivered that was there when it was opened. The hub may not know of all of that yet."""
        return self._reader.position >= self._end

    @property
    def finished(self) -> bool:
        """Whether a settled reading has delivered everything that was there when it was opened."""
        return self.settled and self.has_reached_end

    @property
    def is_caught_up(self) -> bool:
        """Whether everything known has been delivered."""
        return self._reader.is_caught_up

    async def next(self, timeout: float | None = None, push: Push | None = None) -> Batch | None:
        """Return the next batch, or None if none comes within *timeout* seconds or the reading is finished.

        Args:
            timeout: None waits without end.
            push: Is offered each batch that comes during the wait. What it takes counts as read and is not returned.

        Raises:
            ChannelUnavailableError: The log is lost; subscribe again after the last seq seen.
        """
        if self.finished:
            return None
        if (batch := self._reader.take()) is not None:
            return batch
        with anyio.move_on_after(timeout):
            # What is pushed does not end the wait, as the last record of a settled reading has to.
            return await self._reader.next(None if self.settled else push)
        return None


@attrs.frozen
class _Right:
    """By what right an append is made, and what it demands."""

    epoch: int | None
    tenure: Tenure | None
    demand: Demand


@attrs.define(kw_only=True)
class ChannelService:
    """The one way for writers who go through us, and for all readers."""

    log: ChannelLog
    hub: Hub
    gate: InputGate
    waits: WaitService
    closing: Closing
    clock: Clock
    ids: Ids
    observer: Observer
    _guards: BoundedDict[Channel, Guard] = attrs.field(init=False, factory=lambda: BoundedDict(KNOWN_GUARDS))

    async def append_text(
        self, session: Session, io: Io, text: str, *, part_id: PartId | None = None, epoch: int | None = None
    ) -> Appended:
        """Append *text* as one data record whose ``data`` is that text, unparsed.

        Args:
            session: May be a stale read.
            io: Appending to ``in`` ensures a live run and wakes those who wait; a forged webhook mark is removed.
            text: Any text.
            part_id: The same id again (within the log's window) gives the first one's seq.
            epoch: On ``out``: the attempt that writes. None for a writer that is no run.

        Raises:
            ClosedError: The session is closed or expired.
            StaleRunError: The epoch is over.
            RecordTooLargeError: Over the log's limit.
            UnavailableError: No answer; a retry with the same part id is safe.
        """
        if part_id is not None and part_id.startswith(RESERVED_PARTS):
            raise InvalidError("X-Part-Id", f"must not start with {RESERVED_PARTS}")
        if io is Io.IN:
            text = sanitise_input(text)
        record = data_record(text, part_id or PartId(self.ids.new_part()), dedupe=part_id is not None)
        return (await self.append(session, io, (record,), epoch=epoch))[0]

    async def append(
        self,
        session: Session,
        io: Io,
        records: Sequence[NewRecord],
        *,
        epoch: int | None = None,
        tenure: Tenure | None = None,
        demand: Demand = NO_DEMAND,
    ) -> list[Appended]:
        """Append *records*, all or none, and wake those who wait. See :meth:`append_text`.

        Args:
            session: May be a stale read.
            io: Says which channel.
            records: Commands are not among them.
            epoch: On ``out``: the attempt that writes. None for a writer that is no run.
            tenure: On ``out``: whose credentials a direct writer has. None for a writer that has none.
            demand: What has to hold true of the channel.

        Raises:
            GuardMismatchError: The channel has not the guard that is demanded.
            TailMismatchError: Nor the tail.
            InvalidError: The guard that is demanded of ``in`` says that nobody reads it.

        Cancelling leaves it open whether they were stored; if they were, those who wait are woken by the sweep. (A shield
        for every append would cost as much as the rest of this method, to save a moment in a rare case.)
        """
        for record in records:
            record.check_size()
        channel = session.channel(io)
        if session.refusal(self.clock.now()) and self._guards.get(channel) != SEALED:
            await self.closing.seal(session)
            self._guards[channel] = SEALED
        appended = await self._append(session, channel, records, _Right(epoch, tenure, demand))
        await self.waits.wake(channel, records, appended)
        self._tell(channel, appended)
        return appended

    async def append_early(
        self, channel: Channel, records: Sequence[NewRecord], *, demand: Demand = NO_DEMAND
    ) -> list[Appended]:
        """Append *records* to a channel whose session does not exist yet, and wake those who wait.

        Raises:
            GuardMismatchError: The session exists by now, or the channel has not the guard that is demanded.
            TailMismatchError: It has not the tail that is demanded.
        """
        for record in records:
            record.check_size()
        if demand.guard not in (None, UNTOUCHED):
            raise GuardMismatchError(UNTOUCHED)
        appended = await self.log.append(channel, records, guard=UNTOUCHED, if_tail=demand.tail)
        await self.waits.wake(channel, records, appended)
        self._tell(channel, appended)
        return appended

    async def trim_directly(
        self, channel: Channel, first_kept: int, *, session: Session | None, tenure: Tenure | None, guard: Guard | None
    ) -> int:
        """Trim ``out`` for a direct writer; return the seq of the trim command.

        Args:
            channel: An ``out``.
            first_kept: The first record that stays.
            session: None if there is none yet.
            tenure: Whose credentials the writer has.
            guard: What the channel must have; None for any.

        Raises:
            GuardMismatchError: The channel has not the guard that is demanded.
            StaleRunError: The tenure is over.
            ClosedError: The session is closed or expired.
        """
        actual = (await self.log.tail(channel)).guard
        for _ in range(APPEND_ATTEMPTS):
            if session is not None:
                await self._check_tenure(session, actual, tenure)
            if guard not in (None, actual):
                raise GuardMismatchError(actual)
            try:
                return await self.log.trim(channel, first_kept, guard=actual)
            except GuardMismatchError as error:
                actual = error.actual
        raise ClaimExhaustedError(channel.key, APPEND_ATTEMPTS)

    async def trim(self, session: Session, first_kept: int, *, epoch: int) -> int:
        """Let the records of ``out`` before *first_kept* go; return the seq of the trim command.

        Raises:
            StaleRunError: The epoch is over.
            ClosedError: The session is closed or expired.
        """
        try:
            return await self.log.trim(session.channel(Io.OUT), first_kept, guard=Guard.live(epoch))
        except GuardMismatchError as error:
            raise await self._out_refusal(session, error.actual, epoch) from None

    async def tail(self, channel: Channel) -> Tail:
        """Return the end of *channel* as it is now."""
        return await self.log.tail(channel)

    async def records(self, channel: Channel, start: int, limit: int | None = None) -> Batch:
        """Return what is there from seq *start* on, at most *limit* records, without waiting."""
        first = await self.log.read(channel, start, READ_RECORDS if limit is None else limit)
        records = list(first.records)
        # A read may be cut short by the size of what it found.
        while records and records[-1].seq + 1 < first.next_seq and (limit is None or len(records) < limit):
            left = READ_RECORDS if limit is None else limit - len(records)
            more = await self.log.read(channel, records[-1].seq + 1, left)
            if not more.records:
                break
            records.extend(more.records)
        return Batch(tuple(records), first.next_seq, first.timestamp)

    @asynccontextmanager
    async def subscribe(
        self, channel: Channel, after: int | None = None, *, peek_settled: bool = False
    ) -> AsyncGenerator[Reading]:
        """Open a reading of the records after seq *after*.

        Args:
            channel: Needs no session row yet.
            after: None reads from the first kept record; a seq past the tail means the tail.
            peek_settled: Ask whether the channel ends with a completed turn; then the reading ends there, too.
        """
        tail = await self.log.tail(channel)
        settled = peek_settled and await self._is_settled(channel, tail)
        start = 0 if after is None else min(after + 1, tail.next_seq)
        gap = tail.first_seq if after is not None and start < tail.first_seq else None
        async with self.hub.open(channel, start if gap is None else tail.first_seq, tail) as reader:
            yield Reading(gap, settled, tail.next_seq, reader)

    async def _append(
        self, session: Session, channel: Channel, records: Sequence[NewRecord], right: _Right
    ) -> list[Appended]:
        if right.tenure is not None and right.tenure.is_over(session):
            raise await self._out_refusal(session, UNTOUCHED, right.epoch)
        if right.demand.guard is not None:
            await self._check_demanded(session, channel, right.demand.guard, right.tenure)
        guard = self._believed(session, channel, right)
        for _ in range(APPEND_ATTEMPTS):
            try:
                appended = await self.log.append(channel, records, guard=guard, if_tail=right.demand.tail)
            except GuardMismatchError as error:
                guard = await self._corrected(session, channel, error.actual, right)
            else:
                if self._guards.get(channel) is not guard:
                    self._guards[channel] = guard
                return appended
        raise ClaimExhaustedError(session.key, APPEND_ATTEMPTS)

    def _believed(self, session: Session, channel: Channel, right: _Right) -> Guard:
        if right.epoch is not None:
            return Guard.live(right.epoch)
        if right.demand.guard is not None:
            return right.demand.guard
        known = self._guards.get(channel)
        if known is not None and (right.tenure is None or right.tenure.covers(known)):
            return known
        return Guard.live(session.current_run_version if channel.io is Io.IN else session.epoch)

    async def _check_demanded(self, session: Session, channel: Channel, demanded: Guard, tenure: Tenure | None) -> None:
        """Refuse to believe in a guard that does not let this writer in: the log would, as soon as it is the right one."""
        if channel.io is Io.IN and not demanded.is_live:
            raise InvalidError("guard", "must be live on in: under any other nobody is going to read what is appended")
        if tenure is not None and not tenure.covers(demanded):
            actual = (await self.log.tail(channel)).guard
            await self._check_tenure(session, actual, tenure)
            raise GuardMismatchError(actual)

    async def _corrected(self, session: Session, channel: Channel, actual: Guard, right: _Right) -> Guard:
        if right.demand.guard is not None and not actual.is_sealed:
            raise GuardMismatchError(actual)
        if channel.io is Io.IN:
            return await self.gate.open(session, actual)
        if right.epoch is not None:
            raise await self._out_refusal(session, actual, right.epoch)
        await self._check_tenure(session, actual, right.tenure)
        return actual

    async def _check_tenure(self, session: Session, actual: Guard, tenure: Tenure | None) -> None:
        """Let a writer of ``out`` that is no run pass while the channel is open and its credentials' time is not over."""
        is_over = tenure is not None and (tenure.is_over(session) or not tenure.covers(actual))
        if actual.is_sealed or is_over:
            raise await self._out_refusal(session, actual, None)

    async def _out_refusal(self, session: Session, actual: Guard, epoch: int | None) -> Exception:
        """Tell, from the row as it is now, why a write is refused: a guard alone does not say what made it idle."""
        if (closed := await self.gate.refusal(session)) is not None:
            return closed
        return SessionClosedError(session.key) if actual.is_sealed else StaleRunError(epoch=epoch)

    def _tell(self, channel: Channel, appended: Sequence[Appended]) -> None:
        duplicates = sum(not place.is_new for place in appended)
        self.observer(RecordsAppended(channel=channel, count=len(appended), duplicates=duplicates))

    async def _is_settled(self, channel: Channel, tail: Tail) -> bool:
        before = tail.next_seq
        while records := await self.log.read_back(channel, before, PEEK_RECORDS):
            if (last := last_visible(records)) is not None:
                return last.control == TURN_COMPLETE
            before = records[-1].seq
        return False
