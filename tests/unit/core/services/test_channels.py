"""Appending, reading and the gate of ``in``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import attrs
import pytest
from anyio.lowlevel import checkpoint

from sessions_core.domain.channel import (
    MAX_RECORD_BYTES,
    TURN_COMPLETE,
    Batch,
    Channel,
    Io,
    NewRecord,
    Record,
    control_record,
    data_record,
)
from sessions_core.domain.events import RecordsAppended
from sessions_core.domain.guard import SEALED, UNTOUCHED, Guard
from sessions_core.domain.ids import AddressingKey, PartId, RunId
from sessions_core.domain.session import Session
from sessions_core.domain.status import RunStatus
from sessions_core.errors import (
    ChannelUnavailableError,
    ClaimExhaustedError,
    ClosedError,
    GuardMismatchError,
    RecordTooLargeError,
    SessionClosedError,
    SessionExpiredError,
    SessionNotFoundError,
    StaleRunError,
)
from sessions_core.facade import Sessions
from sessions_core.services.wait_service import WaitRequest
from sessions_core.testing import ManualClock
from unit.core.kit import HOME, NAME, Tap, Tapped, World, data_of, said, say, spec


@pytest.fixture
def world() -> World:
    return World(clock=ManualClock())


@pytest.fixture
def sessions(world: World) -> Sessions:
    return world.sessions()


@pytest.fixture
async def session(sessions: Sessions) -> Session:
    return (await sessions.sessions.create(HOME, spec())).session


async def tail_guard(world: World, io: Io) -> Guard:
    return (await world.log.tail(world.session().channel(io))).guard


async def leave(world: World, sessions: Sessions, version: int, read_to: int) -> bool:
    channel = world.session().channel(Io.IN)
    return await sessions.channels.gate.leave(channel, version, read_to=read_to)


# --- Appending ------------------------------------------------------------------------------------


async def test_a_text_is_stored_as_text_and_told(world: World, sessions: Sessions, session: Session) -> None:
    place = await sessions.channels.append_text(session, Io.IN, '{"a": 1}')
    assert (place.seq, place.is_new) == (0, True)
    (record,) = await world.records(Io.IN)
    assert data_of(record) == '{"a": 1}'
    (event,) = world.observer.of(RecordsAppended)
    assert (event.count, event.duplicates, event.channel) == (1, 0, session.channel(Io.IN))


async def test_a_forged_webhook_mark_is_removed_on_in_only(world: World, sessions: Sessions, session: Session) -> None:
    forged = '{"payload":{"actionSource":"webhook"}}'
    await sessions.channels.append_text(session, Io.IN, forged)
    await sessions.channels.append_text(session, Io.OUT, forged)
    assert [data_of(record) for record in await world.records(Io.IN)] == ['{"payload":{}}']
    assert [data_of(record) for record in await world.records(Io.OUT)] == [forged]


async def test_the_same_part_id_gives_the_first_seq(world: World, sessions: Sessions, session: Session) -> None:
    for text in ("one", "another", "one"):
        await say(sessions, text, part=text)
    again = await sessions.channels.append_text(session, Io.IN, "different body", part_id=PartId("one"))
    assert (again.seq, again.is_new) == (0, False)
    assert len(await world.records(Io.IN)) == 2
    assert [event.duplicates for event in world.observer.of(RecordsAppended)] == [0, 0, 1, 1]


async def test_a_duplicate_is_answered_after_the_close(world: World, sessions: Sessions, session: Session) -> None:
    seq = await say(sessions, "one")
    await sessions.sessions.close(HOME.id, NAME)
    for facade in (sessions, world.sessions()):
        assert await say(facade, "one") == seq
        with pytest.raises(SessionClosedError):
            await say(facade, "two")


async def test_a_record_at_the_limit_passes_and_one_byte_more_is_refused(
    world: World, sessions: Sessions, session: Session
) -> None:
    room = MAX_RECORD_BYTES - 8 - len('{"data":"","id":"p"}')
    await sessions.channels.append_text(session, Io.IN, "x" * room, part_id=PartId("p"))
    with pytest.raises(RecordTooLargeError):
        await sessions.channels.append_text(session, Io.IN, "x" * (room + 1), part_id=PartId("q"))
    assert len(await world.records(Io.IN)) == 1


async def test_an_append_of_several_records_is_all_or_nothing(
    world: World, sessions: Sessions, session: Session
) -> None:
    records = [data_record(1, PartId("a")), NewRecord(b"x" * MAX_RECORD_BYTES)]
    with pytest.raises(RecordTooLargeError):
        await sessions.channels.append(session, Io.OUT, records)
    assert await world.records(Io.OUT) == []


@pytest.mark.parametrize("step", ["before ChannelLog.append", "after ChannelLog.append", "before WaitRegistry.drain"])
async def test_a_cancelled_append_may_be_stored_and_then_still_wakes_by_the_sweep(
    world: World, sessions: Sessions, session: Session, step: str
) -> None:
    run_id = session.current_run_id
    assert run_id is not None
    request = WaitRequest(session=NAME, io=Io.IN)
    waitpoint = (await sessions.waits.create(HOME.id, run_id, request)).waitpoint

    class Cancelling(Tap):
        async def before(self, call: str) -> None:
            await self._maybe_cancel(f"before {call}")

        async def after(self, call: str) -> None:
            await self._maybe_cancel(f"after {call}")

        async def _maybe_cancel(self, now: str) -> None:
            if now == step:
                scope.cancel()
            await checkpoint()

    with anyio.CancelScope() as scope:
        await world.sessions(Cancelling()).channels.append_text(session, Io.IN, "hello", part_id=PartId("p"))
    again = await sessions.channels.append_text(session, Io.IN, "hello", part_id=PartId("p"))
    assert again.seq == 0
    assert len(await world.records(Io.IN)) == 1
    await sessions.sweep.sweep()
    assert (await sessions.waits.get(HOME.id, waitpoint.id)).seq == 0


# --- The gate of in -------------------------------------------------------------------------------


async def test_a_warm_append_is_one_call_of_the_log(world: World, session: Session) -> None:
    class Counting(Tap):
        calls: list[str] = []  # noqa: RUF012 - one instance

        async def before(self, call: str) -> None:
            self.calls.append(call)

    tap = Counting()
    warm = world.sessions(tap)
    await warm.channels.append_text(session, Io.IN, "cold")
    tap.calls.clear()
    await warm.channels.append_text(session, Io.IN, "warm")
    assert tap.calls == ["ChannelLog.append", "WaitRegistry.drain"]


async def test_an_append_to_an_idle_session_starts_a_run(world: World, sessions: Sessions, session: Session) -> None:
    await say(sessions, "one")
    assert await leave(world, sessions, 1, read_to=0)
    assert await tail_guard(world, Io.IN) == Guard.idle(1)
    await say(sessions, "two")
    assert await tail_guard(world, Io.IN) == Guard.live(2)
    assert [run.version for run in world.runs()] == [1, 2]
    assert list(world.engine.jobs) == [run.id for run in world.runs()]


async def test_a_run_does_not_leave_while_there_is_something_to_read(
    world: World, sessions: Sessions, session: Session
) -> None:
    await say(sessions, "one")
    assert not await leave(world, sessions, 1, read_to=-1)
    assert await tail_guard(world, Io.IN) == Guard.live(1)
    assert await leave(world, sessions, 1, read_to=0)
    assert await leave(world, sessions, 1, read_to=0), "leaving again changes nothing"


async def test_a_record_between_looking_and_leaving_makes_the_run_stay(
    world: World, sessions: Sessions, session: Session
) -> None:
    await say(sessions, "one")

    class Late(Tap):
        has_said = False

        async def before(self, call: str) -> None:
            if call == "ChannelLog.set_guard" and not self.has_said:
                self.has_said = True
                await say(sessions, "two")

    assert not await leave(world, world.sessions(Late()), 1, read_to=0)
    assert await tail_guard(world, Io.IN) == Guard.live(1)


async def test_an_old_run_that_leaves_late_does_not_shut_out_its_successor(
    world: World, sessions: Sessions, session: Session
) -> None:
    await leave(world, sessions, 1, read_to=-1)
    await say(sessions, "one")
    assert await tail_guard(world, Io.IN) == Guard.live(2)
    assert await leave(world, sessions, 1, read_to=-1), "it has left already"
    assert await tail_guard(world, Io.IN) == Guard.live(2)


@pytest.mark.parametrize("has_ended", [True, False])
async def test_fifty_appends_to_a_session_that_was_left_start_exactly_one_run(
    world: World, sessions: Sessions, session: Session, has_ended: bool
) -> None:
    await leave(world, sessions, 1, read_to=-1)
    if has_ended:
        run = world.runs()[0]
        world.tables.save_run(attrs.evolve(run, status=RunStatus.COMPLETED_SUCCESSFULLY))
    others = world.sessions()
    seqs: list[int] = []

    async def append(number: int) -> None:
        facade = (sessions, others)[number % 2]
        seqs.append(await say(facade, f"m{number}"))

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(append, number)
    assert sorted(seqs) == list(range(50))
    assert [run.version for run in world.runs()] == [1, 2]
    assert await tail_guard(world, Io.IN) == Guard.live(2)


async def test_an_engine_that_is_down_does_not_hinder_an_append(
    world: World, sessions: Sessions, session: Session
) -> None:
    await leave(world, sessions, 1, read_to=-1)
    world.engine.is_down = True
    await say(sessions, "hello")
    assert world.runs()[1].status is RunStatus.PENDING
    assert world.runs()[1].dispatched_at is None


async def test_an_append_to_a_session_that_vanished_says_so(world: World, sessions: Sessions, session: Session) -> None:
    world.tables.sessions.clear()
    with pytest.raises(SessionNotFoundError):
        await sessions.channels.append_text(session, Io.IN, "hello")


# --- Closed and stale -----------------------------------------------------------------------------


@pytest.mark.parametrize("io", Io)
async def test_a_stale_row_and_a_stale_guard_do_not_let_an_append_into_a_closed_session(
    world: World, session: Session, io: Io
) -> None:
    warm = world.sessions()
    await warm.channels.append_text(session, io, "before")
    await world.sessions().sessions.close(HOME.id, NAME, "done")
    with pytest.raises(SessionClosedError) as caught:
        await warm.channels.append_text(session, io, "after")
    assert caught.value.closed_reason == "done"


async def test_an_expired_session_is_sealed_by_the_first_who_meets_it(world: World, sessions: Sessions) -> None:
    clock = world.clock
    assert isinstance(clock, ManualClock)
    expiring = attrs.evolve(spec(), expires_at=clock.now() + timedelta(minutes=1))
    session = (await sessions.sessions.create(HOME, expiring)).session
    clock.advance(timedelta(minutes=1))
    for io in Io:
        with pytest.raises(SessionExpiredError):
            await sessions.channels.append_text(session, io, "late")
        assert await tail_guard(world, io) == SEALED


async def test_every_append_racing_a_close_is_stored_before_the_seal_or_refused(world: World) -> None:
    sessions, others = world.sessions(), world.sessions()
    await sessions.sessions.create(HOME, spec())
    stored: list[int] = []
    after_close: list[str] = []
    is_closed = False

    async def append(number: int) -> None:
        for _ in range(number % 12):
            await checkpoint()
        began_after = is_closed
        try:
            stored.append(await say((sessions, others)[number % 2], f"m{number}"))
        except ClosedError:
            return
        if began_after:
            after_close.append(f"m{number}")

    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(append, number)
        await sessions.sessions.close(HOME.id, NAME)
        is_closed = True
        sealed_at = (await world.log.tail(world.session().channel(Io.IN))).next_seq
    assert after_close == []
    records = await world.records(Io.IN)
    assert len(records) == sealed_at == len(stored) + 1
    assert all(seq < sealed_at for seq in stored)


async def test_writers_who_are_no_run_follow_the_guard_of_out(
    world: World, sessions: Sessions, session: Session
) -> None:
    channel = session.channel(Io.OUT)
    await sessions.channels.append_text(session, Io.OUT, "before any run")
    await world.log.set_guard(channel, Guard.live(4), expect=UNTOUCHED)
    await sessions.channels.append_text(session, Io.OUT, "later")
    with pytest.raises(StaleRunError):
        await sessions.channels.append(session, Io.OUT, [data_record(1, PartId("p"))], epoch=3)


async def test_a_writer_is_told_that_the_session_is_closing_rather_than_that_it_is_stale(
    world: World, sessions: Sessions, session: Session
) -> None:
    channel = session.channel(Io.OUT)
    await world.log.set_guard(channel, Guard.live(1), expect=UNTOUCHED)
    await world.log.set_guard(channel, Guard.idle(1), expect=Guard.live(1))
    await world.ports().sessions.close(HOME.id, session.id, "closing")
    with pytest.raises(ClosedError):
        await sessions.channels.append(session, Io.OUT, [data_record(1, PartId("p"))], epoch=1)


# --- Reading --------------------------------------------------------------------------------------


async def fill(world: World, channel: Channel, count: int) -> None:
    """Append *count* data records around the services."""
    guard = (await world.log.tail(channel)).guard
    for number in range(count):
        await world.log.append(channel, [data_record(number, PartId(f"fill{number}"), dedupe=False)], guard=guard)


async def complete(world: World, channel: Channel, covered: int = 0) -> None:
    guard = (await world.log.tail(channel)).guard
    await world.log.append(channel, [control_record(TURN_COMPLETE, {"session-in-event-id": str(covered)})], guard=guard)


async def test_records_reads_everything_or_up_to_a_limit(
    world: World, sessions: Sessions, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessions_core.services.channel_service.READ_RECORDS", 3)
    channel = session.channel(Io.OUT)
    await fill(world, channel, 10)
    everything = await sessions.channels.records(channel, 0)
    assert [record.seq for record in everything.records] == list(range(10))
    assert everything.next_seq == 10
    some = await sessions.channels.records(channel, 4, 2)
    assert [record.seq for record in some.records] == [4, 5]
    assert (await sessions.channels.records(channel, 99)).records == ()


async def drain(reading: Any, count: int) -> list[Record]:
    got: list[Record] = []
    while len(got) < count:
        batch = await reading.next(5)
        assert batch is not None, f"only {len(got)} of {count}"
        got.extend(batch.records)
    return got


@pytest.mark.parametrize(
    ("after", "first", "gap"),
    [(None, 3, None), (-5, 3, 3), (0, 3, 3), (1, 3, 3), (2, 3, None), (5, 6, None), (99, 8, None)],
)
async def test_a_reading_begins_after_the_seq_it_names_and_tells_of_a_gap(
    world: World, sessions: Sessions, session: Session, after: int | None, first: int, gap: int | None
) -> None:
    channel = session.channel(Io.OUT)
    await fill(world, channel, 7)
    await world.log.trim(channel, 3, guard=UNTOUCHED)
    async with sessions.hub, sessions.channels.subscribe(channel, after) as reading:
        assert reading.gap == gap
        assert reading.next_seq == 8
        await fill(world, channel, 1)
        got = await drain(reading, 9 - first)
        assert [record.seq for record in got] == list(range(first, 9))
        assert reading.is_caught_up


async def test_a_channel_without_a_session_can_be_read(world: World, sessions: Sessions) -> None:
    channel = Channel(HOME.id, AddressingKey("nobody yet"), Io.OUT)
    async with sessions.hub, sessions.channels.subscribe(channel) as reading:
        assert await reading.next(0.1) is None
        await fill(world, channel, 1)
        assert len(await drain(reading, 1)) == 1


@pytest.mark.parametrize("commands", [0, 1, 40])
async def test_a_channel_is_settled_if_its_last_visible_record_completes_a_turn(
    world: World, sessions: Sessions, session: Session, commands: int
) -> None:
    channel = session.channel(Io.OUT)
    async with sessions.hub:
        for settle, expected in ((False, False), (True, True)):
            await fill(world, channel, 2)
            if settle:
                await complete(world, channel)
            for _ in range(commands):
                await world.log.trim(channel, 0, guard=UNTOUCHED)
            async with sessions.channels.subscribe(channel, peek_settled=True) as reading:
                assert reading.settled is expected
            async with sessions.channels.subscribe(channel) as reading:
                assert not reading.settled, "nobody asked"


async def test_an_empty_channel_is_not_settled(sessions: Sessions, session: Session) -> None:
    async with sessions.hub, sessions.channels.subscribe(session.channel(Io.OUT), peek_settled=True) as reading:
        assert not reading.settled


@pytest.mark.parametrize("after", [None, 0, 2])
async def test_a_settled_reading_ends_with_its_tail(
    world: World, sessions: Sessions, session: Session, after: int | None
) -> None:
    channel = session.channel(Io.OUT)
    await fill(world, channel, 2)
    await complete(world, channel)
    async with sessions.hub, sessions.channels.subscribe(channel, after, peek_settled=True) as reading:
        got = []
        while (batch := await reading.next()) is not None:
            got += [record.seq for record in batch.records]
        assert got == list(range(0 if after is None else after + 1, 3))
        assert reading.finished


class Late(Tapped):
    """A log whose followers hear everything a second late."""

    @asynccontextmanager
    async def _follow(self, channel: Channel, start: int) -> AsyncGenerator[AsyncIterator[Batch]]:
        async with self._inner.follow(channel, start) as batches:
            yield _LateBatches(batches)


@attrs.define
class _LateBatches(AsyncIterator[Batch]):
    inner: AsyncIterator[Batch]

    async def __anext__(self) -> Batch:
        batch = await anext(self.inner)
        await anyio.sleep(1)
        return batch


async def test_a_settled_reading_ends_with_its_tail_also_where_followers_lag(world: World) -> None:
    sessions = world.sessions(log=Late(world.log, Tap()))
    session = (await sessions.sessions.create(HOME, spec())).session
    channel = session.channel(Io.OUT)
    async with sessions.hub, sessions.channels.subscribe(channel):
        await anyio.sleep(0.1)
        await fill(world, channel, 2)
        await complete(world, channel)
        async with sessions.channels.subscribe(channel, peek_settled=True) as reading:
            assert reading.settled
            assert [record.seq for record in await drain(reading, 3)] == [0, 1, 2]
            assert await reading.next() is None


# --- Trimming -------------------------------------------------------------------------------------


async def test_a_trim_needs_the_epoch_and_an_open_session(world: World, sessions: Sessions, session: Session) -> None:
    channel = session.channel(Io.OUT)
    await fill(world, channel, 3)
    await world.log.set_guard(channel, Guard.live(1), expect=UNTOUCHED)
    assert await sessions.channels.trim(session, 2, epoch=1) == 3
    assert (await world.log.tail(channel)).first_seq == 2
    with pytest.raises(StaleRunError):
        await sessions.channels.trim(session, 3, epoch=2)
    await sessions.sessions.close(HOME.id, NAME)
    with pytest.raises(SessionClosedError):
        await sessions.channels.trim(session, 3, epoch=1)


async def test_a_log_that_gives_no_answer_is_not_asked_forever(world: World, session: Session) -> None:
    class Down(Tap):
        calls = 0

        async def before(self, call: str) -> None:
            self.calls += 1
            raise ChannelUnavailableError

    tap = Down()
    with pytest.raises(ChannelUnavailableError):
        await world.sessions(tap).channels.append_text(session, Io.IN, said("x"))
    assert tap.calls == 1


async def test_a_guard_that_keeps_changing_ends_in_an_error(world: World, session: Session) -> None:
    class Restless(Tap):
        async def before(self, call: str) -> None:
            if call == "ChannelLog.append":
                raise GuardMismatchError(Guard.idle(world.session().current_run_version))

    with pytest.raises(ClaimExhaustedError):
        await world.sessions(Restless()).channels.append_text(session, Io.IN, "x")
    assert RunId(world.runs()[-1].id) == world.session().current_run_id


async def test_a_drain_with_a_limit_gets_that_many_large_records(sessions: Sessions, session: Session) -> None:
    for number in range(12):
        await sessions.channels.append_text(session, Io.IN, f"{number}".ljust(300_000))
    channel = session.channel(Io.IN)
    assert [record.seq for record in (await sessions.channels.records(channel, 0, 10)).records] == list(range(10))
    assert len((await sessions.channels.records(channel, 0)).records) == 12
