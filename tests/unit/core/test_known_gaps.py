"""Orders of events in which a promise does not hold yet, each with the change that would close the gap."""

from __future__ import annotations

import anyio
import pytest

from sessions_core import chat
from sessions_core.domain.ids import RunId
from sessions_core.errors import StaleRunError
from unit.core.kit import HOME, NAME, Tap, World, check_rest, echo_agents, say, spec, until_rest


class Meanwhile(Tap):
    """Lets something happen just before the first call of one kind."""

    def __init__(self, call: str, act: object) -> None:
        self.call, self.act, self.has_acted = call, act, False

    async def before(self, call: str) -> None:
        if call == self.call and not self.has_acted:
            self.has_acted = True
            assert callable(self.act)
            await self.act()


async def begun(world: World) -> tuple[RunId, int]:
    """Begin the session's current run and return it with its epoch."""
    run_id = world.session().current_run_id
    assert run_id is not None
    run = await world.ports().runs.begin(run_id, world.tables.runs[run_id].attempt + 1)
    assert run is not None
    return run_id, run.epoch


async def test_a_run_that_is_replaced_while_it_closes_does_not_close() -> None:
    world = World()
    sessions = world.sessions()
    await sessions.sessions.create(HOME, spec())
    run_id, epoch = await begun(world)

    async def replace() -> None:
        await sessions.sessions.end_and_continue(HOME.id, NAME, run_id, "upgrade")
        await begun(world)

    zombie = world.sessions(Meanwhile("SessionStore.close", replace))
    with pytest.raises(StaleRunError):
        await zombie.sessions.close(HOME.id, NAME, calling_run=run_id, epoch=epoch)


async def test_an_attempt_whose_retry_begins_while_it_hands_over_does_not_hand_over() -> None:
    world = World()
    sessions = world.sessions()
    await sessions.sessions.create(HOME, spec())
    run_id, epoch = await begun(world)

    async def retry() -> None:
        await begun(world)

    zombie = world.sessions(Meanwhile("SessionStore.claim_run", retry))
    with pytest.raises(StaleRunError):
        await zombie.sessions.end_and_continue(HOME.id, NAME, run_id, "upgrade", epoch=epoch)


@pytest.mark.xfail(
    strict=True,
    reason="a run leaves before its record tells how far it has read, so a task that completes no turns may be followed "
    "by a run that reads the same messages again",
)
async def test_a_message_between_leaving_and_ending_does_not_make_old_ones_be_read_again() -> None:
    world = World()
    taken: list[int] = []

    async def takes(run: chat.Run) -> None:
        while (message := await run.inbox.wait_or_leave(run.idle_timeout)) is not None:
            taken.append(message.seq)

    async def message() -> None:
        await say(world.sessions(), "two")
        await anyio.sleep(1)

    tap = Meanwhile("RunStore.finish", message)
    async with world.process(tap, echo_agents({"takes": takes})) as sessions:
        await sessions.sessions.create(HOME, spec("takes"))
        await say(sessions, "one")
        await until_rest(world)
    await check_rest(world)
    assert taken == [0, 1]


async def test_a_task_that_completes_no_turns_hands_over_only_what_it_has_not_read() -> None:
    world = World()
    taken: list[int] = []

    async def moves(run: chat.Run) -> None:
        while (message := await run.inbox.wait_or_leave(run.idle_timeout)) is not None:
            taken.append(message.seq)
            if not run.is_continuation:
                await run.end_and_continue("upgrade")
                return

    async with world.process(agents=echo_agents({"moves": moves})) as sessions:
        await sessions.sessions.create(HOME, spec("moves"))
        await say(sessions, "one")
        await say(sessions, "two")
        await until_rest(world)
    assert taken == [0, 1]
