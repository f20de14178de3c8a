"""What a task is given of an answer in the middle of which its predecessor died."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sessions_core import chat
from sessions_core.domain.channel import Io
from sessions_core.services.unfinished import LONGEST_RECORDS, SCAN_RECORDS
from unit.core.chats import HOME, echo_agents, said, say, spec
from unit.core.cut_off import WORDS, chunks_of, die_after, recover, spoken
from unit.core.promises import until_rest
from unit.core.world import World


async def test_a_task_sees_what_its_predecessor_has_written() -> None:
    world, seen = World(), list[tuple[int, str, int]]()

    async def notes(run: chat.Run) -> None:
        raw = await run.recovered()
        async for turn in run.turns():
            seen.append((turn.seq, turn.recovered.text, len(raw.messages)))
            async with turn:
                await turn.text(spoken(WORDS))

    await die_after(world, 0.15, notes, said("hello"))
    await recover(world, notes, said("again"))
    assert seen == [(0, "", 0), (0, "One two ", 5), (1, "", 5)]


async def test_nothing_is_recovered_where_nobody_died() -> None:
    world, seen = World(), list[int]()

    async def notes(run: chat.Run) -> None:
        seen.append(len((await run.recovered()).messages))
        async for turn in run.turns():
            async with turn:
                await turn.text("x")
            seen.append(len(turn.recovered.chunks))

    async with world.process(agents=echo_agents({"task": notes})) as sessions:
        session = (await sessions.sessions.create(HOME, spec("task"))).session
        for text in ("one", "two"):
            await sessions.channels.append_text(session, Io.IN, said(text))
            await anyio.sleep(10)
    assert seen == [0, 0, 0, 0]


async def test_a_turn_is_only_given_what_belongs_to_its_own_input() -> None:
    """A close that came meanwhile ends the recovered run's first input; the next one begins with nothing."""
    world, seen = World(), list[str]()

    async def notes(run: chat.Run) -> None:
        async for turn in run.turns():
            seen.append(turn.recovered.text)
            async with turn:
                await turn.text(spoken(WORDS))

    async def raw(run: chat.Run) -> None:
        await run.inbox.wait()
        await run.out.append({"type": "start", "messageId": "someone else's"}, {"type": "text-delta", "delta": "no"})
        await anyio.sleep_forever()

    await die_after(world, 0.2, raw, said("hello"))
    await recover(world, notes)
    assert seen == [""]


async def test_state_comes_from_turns_before_and_not_from_the_one_that_was_cut_off() -> None:
    world = World()

    async def counts(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.data("count", (await turn.last_data("count") or 0) + 1)
                await turn.text(spoken(WORDS))

    await die_after(world, 0.55, counts, said("one"), said("two"))
    before = [chunk["data"] for chunk in chunks_of(await world.records(Io.OUT)) if chunk["type"] == "data-count"]
    assert before == [1, 2], "it died in the second turn"
    await recover(world, counts, said("three"))
    chunks = chunks_of(await world.records(Io.OUT))
    assert [chunk["data"] for chunk in chunks if chunk["type"] == "data-count"] == [1, 2, 3]


async def test_state_that_was_written_long_ago_is_not_looked_for_for_ever() -> None:
    world, seen = World(), list[Any]()

    async def notes(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                seen.append(await turn.last_data("note"))
                if turn.seq == 0:
                    await turn.data("note", "old")
                if turn.seq == 2:
                    await turn.write(*({"type": "data-other", "data": number} for number in range(2100)))

    async with world.process(agents=echo_agents({"task": notes})) as sessions:
        await sessions.sessions.create(HOME, spec("task"))
        for text in "abcd":
            await say(sessions, text)
        await until_rest(world)
    assert seen == [None, "old", "old", None]


async def test_state_that_was_taken_back_is_no_state() -> None:
    world, seen = World(), list[Any]()

    async def counts(run: chat.Run) -> None:
        async for turn in run.turns():
            seen.append(await turn.last_data("count"))
            async with turn:
                await turn.text(f"by {run.record.epoch}")
                if turn.seq == 0 or (turn.seq == 1 and run.record.epoch == 1):
                    await turn.data("count", turn.seq)
                if run.record.epoch == 1:
                    await turn.text(spoken(WORDS))

    await die_after(world, 0.55, counts, said("one"), said("two"))
    assert seen == [None, 0]
    await recover(world, counts, said("three"))
    assert seen == [None, 0, 0, 0]


@pytest.mark.parametrize("count", [SCAN_RECORDS * 3 + 7, LONGEST_RECORDS + SCAN_RECORDS])
async def test_what_is_recovered_is_bounded(count: int) -> None:
    world, seen = World(), list[tuple[int, bool, str]]()

    async def long(run: chat.Run) -> None:
        async for turn in run.turns():
            found = await run.recovered()
            seen.append((len(found.messages), found.is_whole, turn.recovered.text[:4]))
            if run.is_continuation:
                return
            async with turn:
                await turn.write(*({"type": "text-delta", "id": "t", "delta": f"{number} "} for number in range(count)))
                await anyio.sleep_forever()

    await die_after(world, 1, long, said("go"))
    async with world.process(agents=echo_agents({"task": long})):
        await anyio.sleep(20)
    is_whole = count < LONGEST_RECORDS
    assert seen[1][1] is is_whole
    assert seen[1][0] == count + 2 if is_whole else LONGEST_RECORDS <= seen[1][0] < count
    assert seen[1][2] == "0 1 " or not is_whole
