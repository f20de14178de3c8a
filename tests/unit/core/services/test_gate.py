"""The gate of ``in``: nothing is left lying in front of a run that has left."""

from __future__ import annotations

import anyio
import attrs
import pytest

from sessions_core.domain.channel import Io
from sessions_core.domain.guard import Guard
from sessions_core.domain.ids import RunId
from sessions_core.domain.session import Session
from sessions_core.domain.status import RunStatus
from sessions_core.errors import ClaimExhaustedError, GuardMismatchError
from sessions_core.facade import Sessions
from unit.core.chats import say
from unit.core.taps import Tap
from unit.core.world import World


async def leave(world: World, sessions: Sessions, version: int, read_to: int) -> bool:
    channel = world.session().channel(Io.IN)
    return await sessions.channels.gate.leave(channel, version, read_to=read_to)


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
    assert await world.guard(Io.IN) == Guard.idle(1)
    await say(sessions, "two")
    assert await world.guard(Io.IN) == Guard.live(2)
    assert [run.version for run in world.runs()] == [1, 2]
    assert list(world.engine.jobs) == [run.id for run in world.runs()]


async def test_a_run_does_not_leave_while_there_is_something_to_read(
    world: World, sessions: Sessions, session: Session
) -> None:
    await say(sessions, "one")
    assert not await leave(world, sessions, 1, read_to=-1)
    assert await world.guard(Io.IN) == Guard.live(1)
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
    assert await world.guard(Io.IN) == Guard.live(1)


async def test_an_old_run_that_leaves_late_does_not_shut_out_its_successor(
    world: World, sessions: Sessions, session: Session
) -> None:
    await leave(world, sessions, 1, read_to=-1)
    await say(sessions, "one")
    assert await world.guard(Io.IN) == Guard.live(2)
    assert await leave(world, sessions, 1, read_to=-1), "it has left already"
    assert await world.guard(Io.IN) == Guard.live(2)


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
    assert await world.guard(Io.IN) == Guard.live(2)


async def test_an_engine_that_is_down_does_not_hinder_an_append(
    world: World, sessions: Sessions, session: Session
) -> None:
    await leave(world, sessions, 1, read_to=-1)
    world.engine.is_down = True
    await say(sessions, "hello")
    assert world.runs()[1].status is RunStatus.PENDING
    assert world.runs()[1].dispatched_at is None


async def test_a_guard_that_keeps_changing_ends_in_an_error(world: World, session: Session) -> None:
    class Restless(Tap):
        async def before(self, call: str) -> None:
            if call == "ChannelLog.append":
                raise GuardMismatchError(Guard.idle(world.session().current_run_version))

    with pytest.raises(ClaimExhaustedError):
        await world.sessions(Restless()).channels.append_text(session, Io.IN, "x")
    assert RunId(world.runs()[-1].id) == world.session().current_run_id
