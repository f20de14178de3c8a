"""Random calls to a channel log, compared with lists."""

from __future__ import annotations

from typing import Any

import anyio
import attrs
import pytest
from anyio.from_thread import BlockingPortal
from hypothesis import strategies as st
from hypothesis.stateful import rule

from contract.adapters import Case, cases_with
from contract.logs import FENCE
from contract.machines import AdapterMachine, run_machine
from contract.makers import MILLISECOND, make_channel, record
from sessions_core.domain.channel import Appended, Batch, Channel, Io, NewRecord, Record, trim_command
from sessions_core.domain.guard import SEALED, UNTOUCHED, Guard
from sessions_core.errors import GuardMismatchError

CHANNELS = [make_channel(io=Io.IN), make_channel(io=Io.OUT), make_channel(env="env_b")]
GUARDS = [UNTOUCHED, Guard.live(1), Guard.idle(1), Guard.live(2), SEALED]

TRIM = trim_command(0).headers

channels = st.sampled_from(CHANNELS)
guards = st.sampled_from(GUARDS)
batches = st.lists(
    st.builds(record, st.binary(max_size=3), st.none() | st.sampled_from("pqrstuvw")), min_size=1, max_size=4
)
seqs = st.integers(0, 40)
limits = st.integers(0, 12)


def told(records: list[Record]) -> list[Record]:
    """Return *records*, with no trim asking for more than its own seq: a log may store it as what it does."""
    return [
        attrs.evolve(record, body=min(record.body, record.seq.to_bytes(8, "big"))) if record.headers == TRIM else record
        for record in records
    ]


@attrs.define
class Expected:
    """One channel as it should be: every record ever stored, and how much of that must still be there.

    Part ids stay inside their window here: an example has fewer than 1 000 records and takes less than 15 minutes.
    """

    records: list[Record] = attrs.field(factory=list)
    parts: dict[str, int] = attrs.field(factory=dict)
    guard: Guard = UNTOUCHED
    surely_kept: int = 0

    def append(self, batch: list[NewRecord], guard: Guard, now: int) -> list[Appended] | type[Exception]:
        known = [record.part_id in self.parts for record in batch]
        if not all(known) and (guard != self.guard or guard == SEALED):
            return GuardMismatchError
        timestamp = max(now, self.records[-1].timestamp if self.records else 0)
        return [self._place(record, timestamp) for record in batch]

    def _place(self, new: NewRecord, timestamp: int) -> Appended:
        if new.part_id is not None and new.part_id in self.parts:
            return Appended(self.parts[new.part_id], is_new=False)
        seq = len(self.records)
        if new.part_id is not None:
            self.parts[new.part_id] = seq
        self.records.append(Record(seq, timestamp, new.body, new.headers))
        return Appended(seq)

    def set_guard(self, new: Guard, now: int, guard_seqs: int) -> None:
        self.guard = new
        for _ in range(guard_seqs):
            self._place(
                NewRecord(str(new).encode(), FENCE), max(now, self.records[-1].timestamp if self.records else 0)
            )

    def trim(self, first_kept: int, guard: Guard, now: int) -> int | type[Exception]:
        appended = self.append([trim_command(first_kept)], guard, now)
        if isinstance(appended, type):
            return appended
        self.surely_kept = max(self.surely_kept, min(first_kept, appended[0].seq))
        return appended[0].seq

    def check_read(self, found: list[Record], start: int, limit: int) -> None:
        """Accept records from *start* on, with or without those that a trim has let go."""
        first = found[0].seq if found else max(start, self.surely_kept)
        assert start <= first <= max(start, self.surely_kept)
        assert told(found) == told(self.records[first:][:limit])

    def check_read_back(self, found: list[Record], before: int, limit: int) -> None:
        full = self.records[:before][::-1][:limit]
        assert told(found) == told(full[: len(found)])
        assert len(found) >= len([record for record in full if record.seq >= self.surely_kept])


class ChannelLogMachine(AdapterMachine):
    def __init__(self, case: Case, portal: BlockingPortal) -> None:
        super().__init__(case, portal)
        assert self.adapters.channel_log is not None
        self.log = self.adapters.channel_log
        self.case = case
        self.expected = {channel: Expected() for channel in CHANNELS}

    @property
    def now(self) -> int:
        return round(self.clock.now().timestamp() * 1000)

    @rule(channel=channels, batch=batches, guard=guards)
    def append_under_some_guard(self, channel: Channel, batch: list[NewRecord], guard: Guard) -> None:
        expected = self.expected[channel].append(batch, guard, self.now)
        assert self.answer(self.log.append, channel, batch, guard=guard) == expected

    @rule(channel=channels, batch=batches)
    def append_under_the_right_guard(self, channel: Channel, batch: list[NewRecord]) -> None:
        self.append_under_some_guard(channel, batch, self.expected[channel].guard)

    @rule(channel=channels, new=guards, expect=guards, if_tail=st.none() | st.integers(-1, 1))
    def set_guard(self, channel: Channel, new: Guard, expect: Guard, if_tail: int | None) -> None:
        known = self.expected[channel]
        tail = len(known.records)
        done = known.guard == expect and GUARDS.index(new) > GUARDS.index(expect) and not if_tail
        arguments: dict[str, Any] = {"expect": expect, "if_tail": None if if_tail is None else tail + if_tail}
        change = self.answer(self.log.set_guard, channel, new, **arguments)
        if done:
            known.set_guard(new, self.now, self.case.technology.guard_seqs)
        assert (change.done, change.actual, change.tail) == (done, known.guard, len(known.records))

    @rule(channel=channels, new=guards)
    def raise_guard(self, channel: Channel, new: Guard) -> None:
        if new != SEALED or len(self.expected[channel].records) > 10:
            self.set_guard(channel, new, self.expected[channel].guard, None)

    @rule(channel=channels, first_kept=seqs, is_right=st.booleans(), other=guards)
    def trim(self, channel: Channel, first_kept: int, is_right: bool, other: Guard) -> None:
        guard = self.expected[channel].guard if is_right else other
        expected = self.expected[channel].trim(first_kept, guard, self.now)
        assert self.answer(self.log.trim, channel, first_kept, guard=guard) == expected

    @rule(channel=channels)
    def tail(self, channel: Channel) -> None:
        known, tail = self.expected[channel], self.answer(self.log.tail, channel)
        assert (tail.next_seq, tail.guard) == (len(known.records), known.guard)
        assert tail.timestamp == (known.records[-1].timestamp if known.records else 0)
        assert 0 <= tail.first_seq <= known.surely_kept

    @rule(channel=channels, start=seqs, limit=limits)
    def read(self, channel: Channel, start: int, limit: int) -> None:
        batch: Batch = self.answer(self.log.read, channel, start, limit)
        self.expected[channel].check_read(list(batch.records), start, limit)
        assert batch.next_seq == len(self.expected[channel].records)

    @rule(channel=channels, before=seqs, limit=limits)
    def read_back(self, channel: Channel, before: int, limit: int) -> None:
        found = self.answer(self.log.read_back, channel, before, limit)
        self.expected[channel].check_read_back(found, before, limit)

    @rule(channel=channels, start=seqs)
    def follow_to_the_tail(self, channel: Channel, start: int) -> None:
        known = self.expected[channel]
        if start < len(known.records):
            found = self.portal.call(self._follow, channel, start, len(known.records))
            known.check_read(found, start, len(known.records))

    async def _follow(self, channel: Channel, start: int, end: int) -> list[Record]:
        found: list[Record] = []
        with anyio.fail_after(10):
            async with self.log.follow(channel, start) as batches:
                while not found or found[-1].seq < end - 1:
                    found.extend((await anext(batches)).records)
        return found

    @rule(milliseconds=st.integers(-1000, 2000))
    def move_the_clock(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds * MILLISECOND)


@pytest.mark.parametrize("subject", cases_with(["channel_log"], backends=["asyncio"]), ids=str)
def test_a_channel_log_does_what_lists_do(subject: Case) -> None:
    run_machine(ChannelLogMachine, subject)
