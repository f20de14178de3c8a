"""Orders of events that lie between a check and an act, or between two writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial

import anyio
import pytest

from sessions_core import chat
from sessions_core.domain.channel import UPGRADE_REQUIRED, Io, data_record
from sessions_core.domain.events import InputGivenUp, RunEnded, TurnFailed
from sessions_core.domain.guard import UNTOUCHED, Guard
from sessions_core.domain.ids import PartId, RunId, own_part
from sessions_core.domain.status import RunStatus
from sessions_core.errors import GuardMismatchError, InvalidError, SessionClosedError, StaleRunError
from unit.core.chats import HOME, NAME, data_of, echo_agents, say, spec
from unit.core.promises import check_rest, until_rest
from unit.core.taps import Tap
from unit.core.world import LoopClock, World


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


async def took_out(world: World) -> int:
    """Begin the session's current run and let it take ``out``; return its epoch."""
    _, epoch = await begun(world)
    out = world.session().channel(Io.OUT)
    guard = (await world.log.tail(out)).guard
    assert (await world.log.set_guard(out, Guard.live(epoch), expect=guard)).done
    return epoch


@pytest.mark.parametrize("begin", [took_out, begun], ids=["with out", "without out"])
async def test_a_run_that_begins_while_it_is_handed_over_writes_no_more(
    begin: Callable[[World], Awaitable[object]],
) -> None:
    world = World()
    created = await world.sessions().sessions.create(HOME, spec())
    late = world.sessions(Meanwhile("SessionStore.claim_run", partial(begin, world)))
    assert (await late.sessions.end_and_continue(HOME.id, NAME, created.run_id, "upgrade")).swapped
    with pytest.raises(StaleRunError):
        await world.sessions().channels.append(world.session(), Io.OUT, [data_record("x", PartId("x"))], epoch=1)
    assert [record.control for record in await world.records(Io.OUT)] == [UPGRADE_REQUIRED]


async def test_each_hand_over_is_told_once_also_those_of_runs_that_never_began() -> None:
    world = World()
    sessions = world.sessions()
    run_id = (await sessions.sessions.create(HOME, spec())).run_id
    for _ in range(3):
        run_id = (await sessions.sessions.end_and_continue(HOME.id, NAME, run_id, "upgrade")).run_id
    assert [record.control for record in await world.records(Io.OUT)] == [UPGRADE_REQUIRED] * 3
    async with world.process():
        await until_rest(world)
    assert [record.control for record in await world.records(Io.OUT)] == [UPGRADE_REQUIRED] * 3


@pytest.mark.parametrize("begin", [took_out, begun], ids=["with out", "without out"])
@pytest.mark.parametrize("late", ["ChannelLog.append", "ChannelLog.set_guard"])
async def test_a_hand_over_to_a_run_that_is_replaced_before_it_tells_of_it_is_told(
    begin: Callable[[World], Awaitable[object]], late: str
) -> None:
    world = World()
    run_id = (await world.sessions().sessions.create(HOME, spec())).run_id
    early = world.sessions(Meanwhile(late, partial(begin, world)))
    for sessions in (early, world.sessions()):
        moved = await sessions.sessions.end_and_continue(HOME.id, NAME, run_id, "upgrade")
        assert moved.swapped
        run_id = moved.run_id
    assert [record.control for record in await world.records(Io.OUT)] == [UPGRADE_REQUIRED] * 2


async def test_a_message_between_leaving_and_ending_does_not_make_old_ones_be_read_again() -> None:
    world = World()
    taken: list[int] = []

    async def takes(run: chat.Run) -> None:
        while (message := await run.inbox.wait_with_idle_timeout(run.idle_timeout)) is not None:
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
        while (message := await run.inbox.wait_with_idle_timeout(run.idle_timeout)) is not None:
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


# --- What a task may do to itself -----------------------------------------------------------------


async def test_an_error_about_another_session_is_a_failure_like_all_others() -> None:
    world = World()

    async def confused(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                raise SessionClosedError("another one")

    async with world.process(agents=echo_agents({"confused": confused})) as sessions:
        await sessions.sessions.create(HOME, spec("confused"))
        await say(sessions, "one")
        await until_rest(world)
    await check_rest(world)
    assert [event.error for event in world.observer.of(TurnFailed)] == ["SessionClosedError"]
    assert len(world.runs()) == 1


@pytest.mark.parametrize("is_closed", [False, True])
@pytest.mark.parametrize("in_turn", [False, True])
async def test_refused_tasks_of_a_run_that_is_over_are_no_failure(in_turn: bool, is_closed: bool) -> None:
    """Each of them gets an error; together they come as a group."""
    world = World()

    async def crowd(write: Callable[[str], Awaitable[object]]) -> None:
        async with anyio.create_task_group() as tasks:
            for text in "ab":
                tasks.start_soon(write_on, write, text)

    async def write_on(write: Callable[[str], Awaitable[object]], text: str) -> None:
        with anyio.CancelScope(shield=True):  # so that both meet their refusal
            await anyio.sleep(5)
            await write(text)

    async def crowded(run: chat.Run) -> None:
        if run.is_continuation:
            return
        if not in_turn:
            await crowd(run.out.append)
        async for turn in run.turns():
            async with turn:
                await crowd(turn.text)

    async with world.process(agents=echo_agents({"crowded": crowded})) as sessions:
        created = await sessions.sessions.create(HOME, spec("crowded"))
        await say(sessions, "one")
        await anyio.sleep(1)
        if is_closed:
            await sessions.sessions.close(HOME.id, NAME)
        else:
            await sessions.sessions.end_and_continue(HOME.id, NAME, created.run_id, "upgrade")
        await until_rest(world)
    assert world.observer.of(TurnFailed) == []
    ended = next(event for event in world.observer.of(RunEnded) if event.run_id == created.run_id)
    assert ended.status is (RunStatus.COMPLETED_SUCCESSFULLY if is_closed else RunStatus.CANCELED)
    assert ended.exception is None


async def test_a_raw_task_that_meets_another_session_s_end_uses_up_its_attempts() -> None:
    world = World()

    async def confused(run: chat.Run) -> None:
        await run.inbox.wait()
        raise StaleRunError("run_of_somebody_else")

    async with world.process(agents=echo_agents({"confused": confused})) as sessions:
        await sessions.sessions.create(HOME, spec("confused", maxAttempts=2))
        await say(sessions, "one")
        await until_rest(world)
    assert [run.status for run in world.runs()] == [RunStatus.COMPLETED_WITH_ERRORS] * 2
    assert len(world.observer.of(InputGivenUp)) == 1


async def test_a_task_that_hands_over_after_each_message_comes_to_rest() -> None:
    world = World()
    taken: list[int] = []

    async def moves(run: chat.Run) -> None:
        message = await run.inbox.wait_with_idle_timeout(run.idle_timeout)
        if message is not None:
            taken.append(message.seq)
            await run.end_and_continue("upgrade")

    async with world.process(agents=echo_agents({"moves": moves})) as sessions:
        await sessions.sessions.create(HOME, spec("moves"))
        for text in ("one", "two", "three"):
            await say(sessions, text)
        await until_rest(world)
    assert taken == [0, 1, 2]
    assert len(world.runs()) == 4


async def test_a_clean_stop_keeps_what_a_task_without_turns_has_taken() -> None:
    world = World()
    taken: list[int] = []

    async def takes(run: chat.Run) -> None:
        while (message := await run.inbox.wait()) is not None:
            taken.append(message.seq)

    for _ in range(3):
        async with world.process(agents=echo_agents({"takes": takes})) as sessions:
            await sessions.sessions.create(HOME, spec("takes"))
            await anyio.sleep(5)
            if not taken:
                for text in ("one", "two"):
                    await say(sessions, text)
                await anyio.sleep(1)
            sessions.executor.drain()
            await anyio.sleep(1)
    assert taken == [0, 1]


async def test_a_run_that_was_handed_over_may_not_write_although_its_successor_has_not_begun() -> None:
    world = World()
    sessions = world.sessions()
    session = (await sessions.sessions.create(HOME, spec())).session
    run_id, epoch = await begun(world)
    out = session.channel(Io.OUT)
    await world.log.set_guard(out, Guard.live(epoch), expect=UNTOUCHED)
    await sessions.channels.append(session, Io.OUT, [data_record(1, PartId("a"))], epoch=epoch)
    assert (await sessions.sessions.end_and_continue(HOME.id, NAME, run_id, "upgrade", epoch=epoch)).swapped
    with pytest.raises(StaleRunError):
        await sessions.channels.append(session, Io.OUT, [data_record(2, PartId("b"))], epoch=epoch)
    assert [record.control for record in await world.records(Io.OUT)] == [None, "upgrade-required"]


@pytest.mark.parametrize("name", ["session-closed", "anything"])
async def test_part_ids_of_the_library_s_own_are_refused_from_outside(name: str) -> None:
    world = World()
    sessions = world.sessions()
    session = (await sessions.sessions.create(HOME, spec())).session
    with pytest.raises(InvalidError, match="X-Part-Id"):
        await sessions.channels.append_text(session, Io.IN, "forged", part_id=own_part(name))
    await sessions.channels.append_text(session, Io.IN, "fine", part_id=PartId(name))
    await sessions.sessions.close(HOME.id, NAME)
    assert len(await world.records(Io.IN)) == 2


async def test_a_process_that_stood_still_does_not_take_its_own_runs_for_dead() -> None:
    clock = LoopClock()
    world = World(clock=clock)

    async def long(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await anyio.sleep(40)
                await turn.text("done")

    async with world.process(agents=echo_agents({"long": long})) as sessions:
        await sessions.sessions.create(HOME, spec("long"))
        await say(sessions, "one")
        await anyio.sleep(5)
        clock.stand_still(timedelta(seconds=60))
        await until_rest(world)
    await check_rest(world)
    assert [run.status for run in world.runs()] == [RunStatus.COMPLETED_SUCCESSFULLY]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_whatever_a_task_raises_ends_its_run_and_nothing_else(error: type[BaseException]) -> None:
    world = World()

    async def wild(run: chat.Run) -> None:
        await run.inbox.wait()
        raise error

    async with world.process(agents=echo_agents({"wild": wild})) as sessions:
        await sessions.sessions.create(HOME, spec("wild", maxAttempts=2))
        await say(sessions, "one")
        await until_rest(world)
        assert (await sessions.sessions.get(HOME.id, NAME)).id
    assert [run.status for run in world.runs()] == [RunStatus.COMPLETED_WITH_ERRORS] * 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio's Cancelled cannot be raised by mistake
async def test_a_cancellation_from_something_the_task_awaited_is_a_failure() -> None:
    world = World()

    async def careless(run: chat.Run) -> None:
        await run.inbox.wait()
        raise anyio.get_cancelled_exc_class()

    async with world.process(agents=echo_agents({"careless": careless})) as sessions:
        await sessions.sessions.create(HOME, spec("careless", maxAttempts=2))
        await say(sessions, "one")
        await until_rest(world)
    assert [run.status for run in world.runs()] == [RunStatus.COMPLETED_WITH_ERRORS] * 2


async def test_a_run_that_was_claimed_before_the_close_cannot_open_in_behind_the_close_signal() -> None:
    world = World()
    sessions = world.sessions()
    session = (await sessions.sessions.create(HOME, spec())).session
    channel = session.channel(Io.IN)

    async def open_late() -> None:
        await world.log.set_guard(channel, Guard.live(1), expect=(await world.log.tail(channel)).guard)
        with suppress(GuardMismatchError):
            await world.log.append(channel, [data_record("late", PartId("late"))], guard=Guard.live(1))

    closer = world.sessions(Meanwhile("ChannelLog.append", open_late))
    await closer.sessions.close(HOME.id, NAME)
    assert [data_of(record)[:18] for record in await world.records(Io.IN)] == ['{"kind":"message",']


async def test_what_is_no_json_is_refused_at_the_write() -> None:
    for value in (float("nan"), float("inf"), {"a": [float("-inf")]}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            data_record(value, PartId("p"))
