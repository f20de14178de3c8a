"""From a message to an idle session to the first record of its answer, and what a run leaves behind for the next one."""

from __future__ import annotations

from collections import Counter

import anyio
import attrs
import pytest

from sessions_core import chat
from sessions_core.domain.channel import Io
from sessions_core.domain.guard import Guard
from sessions_core.domain.run import Holding
from sessions_core.domain.status import RunStatus
from sessions_core.errors import StaleRunError
from unit.core.chats import HOME, echo_agents, say, spec
from unit.core.promises import check_promises, until_rest
from unit.core.taps import Tap
from unit.core.world import World

READS = ("find", "get", "tail", "read", "read_back")


@attrs.define
class Calls(Tap):
    """Counts calls of ports until the first write of an answer."""

    count: Counter[str] = attrs.field(factory=Counter)
    is_counting: bool = False

    async def before(self, call: str) -> None:
        # A refused try, the message itself, and then the answer.
        self.is_counting = self.is_counting and self.count["ChannelLog.append"] < 3
        if self.is_counting and ".list_" not in call:
            self.count[call] += 1

    @property
    def reads(self) -> dict[str, int]:
        return {call: count for call, count in self.count.items() if call.rpartition(".")[2] in READS}


async def test_a_message_to_an_idle_session_costs_few_reads(world: World) -> None:
    calls = Calls()
    async with world.process(calls) as sessions:
        await sessions.sessions.create(HOME, spec(idle=1))
        await say(sessions, "one")
        await anyio.sleep(30)
        calls.is_counting = True
        await say(sessions, "two")
        await until_rest(world)
    # The last one may be spared: it depends on whether the message or its reader is first.
    assert calls.count.pop("ChannelLog.read", 0) <= 1
    assert calls.reads == {"SessionStore.find": 2, "RunStore.find": 1, "ChannelLog.tail": 1}
    assert calls.count["ChannelLog.set_guard"] == 3, "fence, take over, open"


async def test_a_run_that_has_ended_may_not_write(world: World) -> None:
    kept: list[chat.Run] = []

    async def keeps(run: chat.Run) -> None:
        kept.append(run)
        await run.out.append("before")

    async with world.process(agents=echo_agents({"keeps": keeps})) as sessions:
        await sessions.sessions.create(HOME, spec("keeps"))
        await anyio.sleep(1)
        with pytest.raises(StaleRunError):
            await kept[0].out.append("after")
    out = world.session().channel(Io.OUT)
    assert (await world.log.tail(out)).guard == Guard.idle(world.session().epoch)


async def test_a_run_whose_process_died_before_lowering_the_guard_is_followed_all_the_same(world: World) -> None:
    async with world.process() as sessions:
        await sessions.sessions.create(HOME, spec())
        first = await say(sessions, "one")
        await until_rest(world)
    session = world.session()
    out = session.channel(Io.OUT)
    world.log._channels[out].guard = Guard.live(session.epoch)
    async with world.process() as sessions:
        second = await say(sessions, "two")
        await until_rest(world)
        await check_promises(world, {"one": first, "two": second})


async def test_a_run_that_another_process_has_begun_since_its_dispatch_is_left_to_it(world: World) -> None:
    sessions = world.sessions(agents=echo_agents())
    created = await sessions.sessions.create(HOME, spec())
    assert sessions.executor.dispatched[created.run_id].attempt == 0
    begun = await world.ports().runs.begin(created.run_id, 1)
    assert begun is not None
    async with sessions.running():
        await sessions.executor.execute(created.run_id)
    run = world.tables.runs[created.run_id]
    assert (run.attempt, run.status) == (1, RunStatus.EXECUTING)
    assert await world.ports().runs.finish(Holding(run.id, 1), RunStatus.COMPLETED_SUCCESSFULLY)
    assert not sessions.executor.dispatched


async def test_a_run_whose_session_was_closed_since_its_dispatch_is_looked_at_again(world: World) -> None:
    sessions = world.sessions(agents=echo_agents())
    created = await sessions.sessions.create(HOME, spec())
    await world.sessions(agents=echo_agents()).sessions.close(HOME.id, created.session.id)
    assert sessions.executor.dispatched[created.run_id].is_alive
    async with sessions.running():
        await sessions.executor.execute(created.run_id)
    run = world.tables.runs[created.run_id]
    assert (run.attempt, run.status) == (0, RunStatus.CANCELED)
