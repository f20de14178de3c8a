"""Appending: what is stored, and what a closed session or a stale writer is told."""

from __future__ import annotations

from datetime import timedelta

import anyio
import attrs
import pytest
from anyio.lowlevel import checkpoint

from sessions_core.domain.channel import MAX_RECORD_BYTES, Io, NewRecord, data_record
from sessions_core.domain.events import RecordsAppended
from sessions_core.domain.guard import SEALED, UNTOUCHED, Guard
from sessions_core.domain.ids import PartId
from sessions_core.domain.session import Session
from sessions_core.errors import (
    ChannelUnavailableError,
    ClosedError,
    RecordTooLargeError,
    SessionClosedError,
    SessionExpiredError,
    SessionNotFoundError,
    StaleRunError,
)
from sessions_core.facade import Sessions
from sessions_core.services.wait_service import WaitRequest
from sessions_core.testing import ManualClock
from unit.core.chats import HOME, NAME, data_of, said, say, spec
from unit.core.taps import Tap
from unit.core.world import World

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
        assert await world.guard(io) == SEALED


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


# --- Trouble --------------------------------------------------------------------------------------


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
