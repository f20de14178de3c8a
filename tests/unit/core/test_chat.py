"""Chat turns: what they write, whole or failing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

from sessions_adapters.profiles import open_sessions
from sessions_core import chat
from sessions_core.domain.channel import Io, Record
from sessions_core.domain.events import TurnFailed
from unit.core.chats import HOME, data_of, said, say, spec
from unit.core.promises import until_rest
from unit.core.taps import Tap
from unit.core.turns import PLAIN, agents, append, data_of_type, plain, slow, talk, written
from unit.core.world import World

# --- Chunks ---------------------------------------------------------------------------------------


async def test_a_plain_answer_has_its_chunks_in_order_and_ends_with_a_turn_complete(world: World) -> None:
    records = await talk(world, plain, said("hello"), said("again"))
    assert written(records) == [*PLAIN, "turn-complete:0", *PLAIN, "turn-complete:1"]
    assert data_of(records[0])["messageId"] != data_of(records[8])["messageId"]
    text_ids = {data_of(record)["id"] for record in records[2:5]}
    assert len(text_ids) == 1
    assert data_of(records[3])["delta"] == "submit-message hello"
    assert len(world.runs()) == 1


async def test_a_streamed_answer_writes_each_delta_as_it_comes(world: World) -> None:
    records = await talk(world, slow, said("go"), pause=5)
    assert written(records) == [*PLAIN[:3], *["text-delta"] * 20, *PLAIN[4:], "turn-complete:0"]
    times = [record.timestamp for record in records if data_of_type(record) == "text-delta"]
    assert times[-1] - times[0] == 1900


async def test_a_turn_without_output_is_still_completed(world: World) -> None:
    async def silent(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                pass

    assert written(await talk(world, silent, said("a"), said("b"))) == ["turn-complete:0", "turn-complete:1"]


async def test_data_parts_and_several_texts_belong_to_one_message(world: World) -> None:
    async def rich(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.data("weather", {"sun": True})
                await turn.text("one")
                await turn.text("two")

    records = await talk(world, rich, said("x"))
    texts = ["text-start", "text-delta", "text-end"]
    expected = ["start", "start-step", "data-weather", *texts, *texts, "finish-step", "finish", "turn-complete:0"]
    assert written(records) == expected
    assert {data_of(record)["id"] for record in records[3:9]} == {"text-1", "text-2"}


async def test_a_data_part_may_have_an_id(world: World) -> None:
    async def named(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.data("x", 1, id="one")

    records = await talk(world, named, said("go"))
    assert data_of(records[2]) == {"type": "data-x", "data": 1, "id": "one"}


# --- Several at once ------------------------------------------------------------------------------


async def test_tasks_of_a_turn_may_write_at_the_same_time() -> None:
    class SlowLog(Tap):
        async def before(self, call: str) -> None:
            await anyio.sleep(0.1 if call == "ChannelLog.append" else 0)

        async def after(self, call: str) -> None:
            await anyio.sleep(0.1 if call == "ChannelLog.append" else 0)

    async def parallel(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn, anyio.create_task_group() as tasks:
                for name in "abc":
                    tasks.start_soon(turn.data, name, 1)
                tasks.start_soon(turn.text, "text")

    world = World()
    async with world.process(SlowLog(), agents(parallel)):
        quick = world.sessions()
        await quick.sessions.create(HOME, spec("task"))
        await append(quick, said("go"))
        await until_rest(world)
    types = written(await world.records(Io.OUT))
    assert types[:2] == ["start", "start-step"]
    assert types[-3:] == ["finish-step", "finish", "turn-complete:0"]
    assert sorted(types[2:-3]) == ["data-a", "data-b", "data-c", "text-delta", "text-end", "text-start"]


# --- Failing --------------------------------------------------------------------------------------


async def test_an_error_in_a_turn_is_told_and_the_run_goes_on(world: World) -> None:
    async def fails(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                if turn.text_input == "bad":
                    await turn.text("half")
                    raise LookupError("secret detail")
                if turn.text_input == "worse":
                    raise ValueError
                await turn.text("fine")

    records = await talk(world, fails, said("bad"), said("worse"), said("good"))
    half = [*PLAIN[:5], "error", *PLAIN[5:]]
    assert written(records) == [*half, "turn-complete:0", "error", "turn-complete:1", *PLAIN, "turn-complete:2"]
    assert "secret" not in str(data_of(records[5]))
    assert [event.error for event in world.observer.of(TurnFailed)] == ["LookupError", "ValueError"]
    assert len(world.runs()) == 1


async def test_an_error_in_the_middle_of_a_text_closes_the_text(world: World) -> None:
    async def fails(run: chat.Run) -> None:
        async def words() -> AsyncIterator[str]:
            yield "half"
            raise ValueError

        async for turn in run.turns():
            async with turn:
                await turn.text(words())

    assert written(await talk(world, fails, said("x"))) == [
        *PLAIN[:5], "error", *PLAIN[5:], "turn-complete:0"
    ]  # fmt: skip


async def test_a_first_chunk_that_is_too_large_leaves_no_half_message(world: World) -> None:
    async def too_much(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text("x" * 2_000_000)

    assert written(await talk(world, too_much, said("x"))) == ["error", "turn-complete:0"]


# --- Two chats ------------------------------------------------------------------------------------


async def test_two_chats_do_not_hear_each_other(world: World) -> None:
    async with world.process(agents=agents(plain)) as sessions:
        for name in ("a", "b"):
            await sessions.sessions.create(HOME, spec("task", name=name))
        for name in ("a", "b", "a"):
            await say(sessions, f"to {name}", part=f"{name}{anyio.current_time()}", name=name)
            await anyio.sleep(1)
        await until_rest(world)
    for name, count in (("a", 2), ("b", 1)):
        deltas = [data_of(r)["delta"] for r in await world.records(Io.OUT, name) if data_of_type(r) == "text-delta"]
        assert deltas == [f"submit-message to {name}"] * count


# --- The named profile ----------------------------------------------------------------------------


async def test_the_memory_profile_echoes() -> None:
    async with open_sessions("memory", agents=agents(plain)) as sessions:
        session = (await sessions.sessions.create(HOME, spec("task", idle=1000))).session
        await say(sessions, "hello")
        async with sessions.channels.subscribe(session.channel(Io.OUT)) as reading:
            got: list[Record] = []
            with anyio.fail_after(5):
                while not got or got[-1].control is None:
                    batch = await reading.next()
                    assert batch is not None
                    got += batch.records
        assert written(got) == [*PLAIN, "turn-complete:0"]
