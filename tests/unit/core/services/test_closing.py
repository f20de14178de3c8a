"""Closing sessions: the first close counts, and nothing follows the ending."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

from sessions_core.domain.channel import SESSION_CLOSED, Io, data_record
from sessions_core.domain.events import SystemFailed
from sessions_core.domain.ids import PartId, RunId
from sessions_core.domain.status import RunStatus
from sessions_core.errors import SessionClosedError, SessionExpiredError, StaleRunError, UnavailableError
from sessions_core.facade import Sessions
from sessions_core.testing import ManualClock
from unit.core.chats import HOME, NAME, said, say, spec
from unit.core.services.runs import begin_run
from unit.core.taps import SlowAt, Tap
from unit.core.world import World


async def test_the_first_reason_and_time_stay(world: World, sessions: Sessions, clock: ManualClock) -> None:
    await sessions.sessions.create(HOME, spec())
    first = await sessions.sessions.close(HOME.id, NAME, "first")
    clock.advance(timedelta(hours=1))
    again = await sessions.sessions.close(HOME.id, NAME, "second")
    assert again == first
    assert first.closed_reason == "first"
    assert first.sealed_at is not None
    endings = [record for record in await world.records(Io.OUT) if record.header(SESSION_CLOSED)]
    assert [record.header("session-closed-reason") for record in endings] == ["first"]


async def test_a_close_that_cannot_seal_in_time_is_not_acknowledged(world: World, sessions: Sessions) -> None:
    await sessions.sessions.create(HOME, spec())
    with pytest.raises(UnavailableError):
        await world.sessions(SlowAt("ChannelLog.set_guard", 60)).sessions.close(HOME.id, NAME, "x")
    assert world.session().sealed_at is None
    assert await sessions.sweep.sweep() == 1
    assert world.session().sealed_at is not None
    assert world.session().closed_reason == "x"


async def test_a_run_that_has_not_begun_when_its_session_is_closed_is_taken_from_its_engine(
    world: World, sessions: Sessions
) -> None:
    created = await sessions.sessions.create(HOME, spec())
    await sessions.sessions.close(HOME.id, NAME)
    assert [run.status for run in world.runs()] == [RunStatus.CANCELED]
    assert world.engine.withdrawn == [created.run_id]
    assert await world.ports().backlog.list_undispatched(world.clock.now() + timedelta(days=1), 10) == []


async def test_a_run_that_has_begun_ends_a_closed_session_by_itself(world: World, sessions: Sessions) -> None:
    await sessions.sessions.create(HOME, spec())
    await begin_run(world)
    await sessions.sessions.close(HOME.id, NAME)
    assert [run.status for run in world.runs()] == [RunStatus.EXECUTING]
    assert world.engine.withdrawn == []


async def test_an_engine_that_is_away_keeps_nobody_from_closing(world: World, sessions: Sessions) -> None:
    created = await sessions.sessions.create(HOME, spec())
    world.engine.is_down = True
    closed = await sessions.sessions.close(HOME.id, NAME)
    assert closed.sealed_at is not None
    assert [failure.step for failure in world.observer.of(SystemFailed)] == ["cancel"]
    world.engine.is_down = False
    assert await world.ports().runs.begin(created.run_id, 1) is None


async def test_a_run_of_an_expired_session_that_has_not_begun_is_ended_by_the_sweep(
    world: World, sessions: Sessions, clock: ManualClock
) -> None:
    expiring = attrs.evolve(spec(), expires_at=clock.now() + timedelta(hours=1))
    created = await sessions.sessions.create(HOME, expiring)
    clock.advance(timedelta(hours=1))
    await sessions.sweep.sweep()
    assert [run.status for run in world.runs()] == [RunStatus.CANCELED]
    assert world.engine.withdrawn == [created.run_id]


async def test_a_run_that_is_replaced_before_it_begins_is_taken_from_its_engine(
    world: World, sessions: Sessions
) -> None:
    created = await sessions.sessions.create(HOME, spec())
    handed = await sessions.sessions.end_and_continue(HOME.id, NAME, created.run_id, "manual")
    assert [run.status for run in world.runs()] == [RunStatus.CANCELED, RunStatus.PENDING]
    assert world.engine.withdrawn == [created.run_id]
    assert handed.swapped


async def test_a_run_closes_its_own_session_only_while_it_is_current(world: World, sessions: Sessions) -> None:
    created = await sessions.sessions.create(HOME, spec())
    run = await begin_run(world)
    with pytest.raises(StaleRunError):
        await sessions.sessions.close(HOME.id, NAME, calling_run=RunId("run_other"))
    with pytest.raises(StaleRunError):
        await sessions.sessions.close(HOME.id, NAME, calling_run=created.run_id, epoch=run.epoch - 1)
    assert world.session().closed_at is None
    closed = await sessions.sessions.close(HOME.id, NAME, "by run", calling_run=created.run_id, epoch=run.epoch)
    assert closed.closed_reason == "by run"


async def test_the_ending_carries_the_reason_of_the_row_whoever_seals(
    world: World, sessions: Sessions, clock: ManualClock
) -> None:
    minute = timedelta(minutes=1)
    await sessions.sessions.create(HOME, attrs.evolve(spec(), expires_at=clock.now() + minute))
    stale = world.session()
    await world.ports().sessions.close(HOME.id, stale.id, "the first reason")
    clock.advance(minute)
    with pytest.raises(SessionClosedError):
        await sessions.channels.append_text(stale, Io.IN, said("x"))
    (ending,) = [record for record in await world.records(Io.OUT) if record.header(SESSION_CLOSED)]
    assert ending.header("session-closed-reason") == "the first reason"


async def test_nothing_follows_the_ending_that_a_close_writes(world: World, sessions: Sessions) -> None:
    """A run that goes on writing is stopped before the ending, not between the ending and the seal."""
    await sessions.sessions.create(HOME, spec())
    run = await begin_run(world)
    session = world.session()

    class Eager(Tap):
        refused = 0

        async def after(self, call: str) -> None:
            if call == "ChannelLog.append":
                more = data_record("more", PartId("m"), dedupe=False)
                try:
                    await sessions.channels.append(session, Io.OUT, [more], epoch=run.epoch)
                except SessionClosedError:
                    self.refused += 1

    eager = Eager()
    await world.sessions(eager).sessions.close(HOME.id, NAME)
    assert eager.refused
    assert (await world.records(Io.OUT))[-1].header(SESSION_CLOSED) == "true"


async def test_the_sweep_seals_what_has_expired(world: World, sessions: Sessions, clock: ManualClock) -> None:
    minute = timedelta(minutes=1)
    await sessions.sessions.create(HOME, attrs.evolve(spec(), expires_at=clock.now() + minute))
    await say(sessions, "in time")
    clock.advance(minute)
    await sessions.sweep.sweep()
    with pytest.raises(SessionExpiredError) as caught:
        await say(sessions, "too late")
    assert caught.value.closed_reason == "expired"
    for io in Io:
        assert (await world.log.tail(world.session().channel(io))).guard.is_sealed
    assert (await world.records(Io.OUT))[-1].header("session-closed-reason") == "expired"
    assert world.session().closed_at is None
