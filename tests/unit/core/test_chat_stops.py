"""Stops: prompt, for the turn under way only, and never in the way of a whole message."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from sessions_core import chat
from sessions_core.domain.channel import TURN_COMPLETE, Io, data_record
from sessions_core.domain.events import TurnFailed, TurnStopped
from sessions_core.domain.ids import PartId
from sessions_core.inbox import PENDING_RECORDS
from unit.core.chats import HOME, STOP, said, spec
from unit.core.promises import check_rest, until_rest
from unit.core.taps import Tap
from unit.core.turns import PLAIN, agents, append, outputs_of, plain, slow, talk, written
from unit.core.world import World

# --- Stop -----------------------------------------------------------------------------------------


async def test_a_stop_cuts_the_answer_short_and_completes_the_turn(world: World) -> None:
    records = await talk(world, slow, said("go"), STOP, said("go on"), pause=0.55)
    first = written(records)[: written(records).index("turn-complete:1") + 1]
    assert first == [*PLAIN[:3], *["text-delta"] * 6, *PLAIN[4:], "turn-complete:1"]
    assert written(records)[-1] == "turn-complete:2"
    assert written(records).count("text-delta") == 26
    assert len(world.runs()) == 1


async def test_a_stop_does_not_claim_to_cover_a_message_that_waits(world: World) -> None:
    async with world.process(agents=agents(slow)) as sessions:
        await sessions.sessions.create(HOME, spec("task"))
        await append(sessions, said("one"))
        await anyio.sleep(0.35)
        await append(sessions, said("two"))
        await append(sessions, STOP)
        await until_rest(world)
    types = written(await world.records(Io.OUT))
    assert [name for name in types if name.startswith("turn")] == ["turn-complete:0", "turn-complete:1"]
    assert types.count("text-delta") == 24
    assert len(world.runs()) == 1, "the run left although a stop came after the last message"


async def test_stopping_twice_does_not_stop_the_message_that_waits(world: World) -> None:
    async with world.process(agents=agents(slow)) as sessions:
        await sessions.sessions.create(HOME, spec("task"))
        await append(sessions, said("one"))
        await anyio.sleep(0.35)
        records = [data_record(text, PartId(f"p{part}")) for part, text in enumerate((said("two"), STOP, STOP))]
        await sessions.channels.append(world.session(), Io.IN, records)
        await until_rest(world)
    types = written(await world.records(Io.OUT))
    assert [name for name in types if name.startswith("turn")] == ["turn-complete:0", "turn-complete:1"]
    assert types.count("text-delta") == 24, "the second answer is whole"


async def test_a_stop_for_an_earlier_turn_does_not_touch_this_one(world: World) -> None:
    records = await talk(world, plain, said("one"), STOP, said("two"), STOP, STOP, pause=0.5)
    assert [n for n in written(records) if n.startswith("turn")] == ["turn-complete:0", "turn-complete:2"]
    await check_rest(world)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_stop_while_a_chunk_is_on_its_way_leaves_a_whole_message(world: World, moment: str) -> None:
    """Whichever write the stop meets, in flight or stored but not answered, starts and ends belong together."""

    class SlowLog(Tap):
        async def before(self, call: str) -> None:
            await anyio.sleep(0.3 if (moment, call) == ("before", "ChannelLog.append") else 0)

        async def after(self, call: str) -> None:
            await anyio.sleep(0.3 if (moment, call) == ("after", "ChannelLog.append") else 0)

    for number, delay in enumerate((0.1, 0.4, 0.7, 1.0)):
        world = World()
        async with world.process(SlowLog(), agents(slow)) as sessions:
            session = (await sessions.sessions.create(HOME, spec("task"))).session
            quick = world.sessions()
            await quick.channels.append_text(session, Io.IN, said("go"))
            await anyio.sleep(delay)
            await quick.channels.append_text(session, Io.IN, STOP)
            await until_rest(world)
        types = written(await world.records(Io.OUT))
        pairs = (("start", "finish"), ("start-step", "finish-step"), ("text-start", "text-end"))
        assert all(types.count(a) == types.count(b) for a, b in pairs), (number, types)
        assert types[-1] == "turn-complete:1"


async def test_a_task_sees_that_it_was_stopped(world: World) -> None:
    seen: list[bool] = []

    async def watching(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                try:
                    await anyio.sleep(10)
                finally:
                    seen.append(turn.is_stopped)

    await talk(world, watching, said("one"), STOP)
    assert seen == [True]


async def test_a_stop_is_told_with_the_record_that_completed_its_turn(world: World) -> None:
    records = await talk(world, slow, said("go"), STOP, said("go on"), pause=0.55)
    stopped = next(record for record in records if record.control == TURN_COMPLETE)
    run_id = world.runs()[0].id
    assert world.observer.of(TurnStopped) == [
        TurnStopped(session_id=world.session().id, run_id=run_id, seq=stopped.seq)
    ]


@pytest.mark.parametrize("is_grouped", [False, True])
async def test_a_stop_is_a_stop_although_the_task_makes_another_error_of_the_cancellation(
    world: World, is_grouped: bool
) -> None:
    class LostConnectionError(Exception):
        pass

    async def sleepy() -> None:
        try:
            await anyio.sleep(100)
        except BaseException as error:
            raise LostConnectionError from error

    async def wraps(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text(turn.text_input)
                if is_grouped:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(sleepy)
                        tasks.start_soon(sleepy)
                await sleepy()

    records = await talk(world, wraps, said("one"), STOP, said("two"), STOP)
    assert written(records) == [*PLAIN, "turn-complete:1", *PLAIN, "turn-complete:3"]
    assert world.observer.of(TurnFailed) == []


@pytest.mark.parametrize("is_grouped", [False, True])
async def test_a_failure_from_before_the_stop_stays_a_failure(world: World, is_grouped: bool) -> None:
    async def slow_to_end() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)

    async def lasting() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await slow_to_end()

    async def fails(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                if is_grouped:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(lasting)
                        await anyio.sleep(0.1)
                        raise LookupError
                try:
                    raise LookupError
                finally:
                    await slow_to_end()

    records = await talk(world, fails, said("one"), STOP, pause=0.5)
    assert written(records) == ["error", "turn-complete:1"]
    assert [event.error for event in world.observer.of(TurnFailed)] == ["LookupError"]
    assert world.observer.of(TurnStopped) == []


# --- Much that waits ------------------------------------------------------------------------------


async def test_a_stop_is_heard_at_once_however_much_waits_before_it(world: World) -> None:
    async def brief(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text(turn.text_input[:10])
                if turn.seq == 0:
                    await anyio.sleep(1000)

    waiting = [f"{number} {'x' * 1000}" for number in range(PENDING_RECORDS + 50)]
    async with world.process(agents=agents(brief)) as sessions:
        await sessions.sessions.create(HOME, spec("task"))
        await append(sessions, said("first"))
        records = [data_record(said(text), PartId(text.split()[0])) for text in waiting]
        await sessions.channels.append(world.session(), Io.IN, records[:900])
        await sessions.channels.append(world.session(), Io.IN, records[900:])
        await append(sessions, STOP)
        await append(sessions, said("last"))
        began = anyio.current_time()
        await until_rest(world, 300)
        assert anyio.current_time() - began < 300
    types = written(await world.records(Io.OUT))
    completed = [name for name in types if name.startswith("turn")]
    last = len(waiting) + 2
    assert completed == [f"turn-complete:{seq}" for seq in (*range(len(waiting) + 1), last)], "each has its own turn"
    texts = [chunk["delta"] for chunk in await outputs_of(world) if chunk["type"] == "text-delta"]
    assert texts == ["first", *(text[:10] for text in waiting), "last"]
    assert len(world.observer.of(TurnStopped)) == 1
    assert len(world.runs()) == 1


async def test_a_stop_is_heard_behind_messages_that_are_too_large_to_hold(world: World) -> None:
    large = "x" * 500_000

    async with world.process(agents=agents(slow)) as sessions:
        await sessions.sessions.create(HOME, spec("task"))
        await append(sessions, said("go"))
        for _ in range(8):
            await append(sessions, said(large))
        await append(sessions, STOP)
        await until_rest(world, 60)
    types = written(await world.records(Io.OUT))
    assert [name for name in types if name.startswith("turn")] == [f"turn-complete:{seq}" for seq in range(9)]
    assert types.index("turn-complete:0") < 10
    assert len(world.runs()) == 1


# --- Much that is being written -------------------------------------------------------------------


async def test_a_stop_is_prompt_although_many_wait_to_write() -> None:
    class SlowLog(Tap):
        async def before(self, call: str) -> None:
            await anyio.sleep(1 if call == "ChannelLog.append" else 0)

    ended: list[float] = []

    async def parallel(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn, anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(turn.data, "x", number)
            ended.append(anyio.current_time())

    world = World()
    async with world.process(SlowLog(), agents(parallel)):
        quick = world.sessions()
        await quick.sessions.create(HOME, spec("task"))
        await append(quick, said("go"))
        await anyio.sleep(2.5)
        stopped_at = anyio.current_time()
        await append(quick, STOP)
        await until_rest(world)
    assert ended[0] - stopped_at <= 2, "the write under way, and the turn-complete"
    assert [t for t in written(await world.records(Io.OUT)) if t.startswith("turn")] == ["turn-complete:1"]


async def test_a_stop_closes_the_generator_that_is_being_written(world: World) -> None:
    closed: list[bool] = []

    async def streams(run: chat.Run) -> None:
        async def words() -> AsyncIterator[str]:
            try:
                while True:
                    yield "x"
                    await anyio.sleep(0.1)
            finally:
                closed.append(True)

        async for turn in run.turns():
            async with turn:
                await turn.text(words())

    await talk(world, streams, said("go"), STOP)
    assert closed == [True]


async def test_a_stop_reaches_a_task_that_does_nothing_but_write(world: World) -> None:
    async def chatters(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                for number in range(100_000):
                    await turn.data("n", number)

    async with world.process(agents=agents(chatters)) as sessions:
        await sessions.sessions.create(HOME, spec("task"))
        await append(sessions, said("go"))
        await append(sessions, STOP)
        await until_rest(world)
    assert written(await world.records(Io.OUT))[-1] == "turn-complete:1"
    assert len(await world.records(Io.OUT)) < 1000
