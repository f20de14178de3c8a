"""A process that dies in the middle of an answer: what the reader of the channel has in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import attrs
import pytest

from sessions_adapters import memory
from sessions_core import chat
from sessions_core.domain.channel import Appended, Channel, Io, NewRecord
from sessions_core.domain.guard import Guard
from sessions_core.errors import RecordTooLargeError
from unit.core.chats import HOME, STOP, echo_agents, said, say, spec
from unit.core.cut_off import WORDS, chunks_of, die_after, recover, says_the_same, spoken
from unit.core.promises import check_promises, until_rest
from unit.core.taps import Crash, CrashAt, Tap
from unit.core.test_partial import read
from unit.core.world import World, run_virtually


async def says_something_else(run: chat.Run) -> None:
    """Begin as before, then differ with each attempt, as a model does."""
    async for turn in run.turns():
        async with turn:
            await turn.data("x", turn.seq)
            await turn.text(spoken(("One ", f"by {run.record.epoch} ", "end")))


async def goes_on(run: chat.Run) -> None:
    """Ask the model only for what is missing: the text so far is said again and costs nothing."""
    async for turn in run.turns():
        async with turn:
            so_far = turn.recovered.text
            whole = "".join(WORDS)
            rest = whole[len(so_far) :]

            async def words(so_far: str = so_far, rest: str = rest) -> AsyncIterator[str]:
                yield so_far
                for letter in rest:
                    yield letter
                    await anyio.sleep(0.03)

            await turn.text(words())


WHOLE: dict[str, tuple[Callable[[chat.Run], Awaitable[None]], list[Any]]] = {
    "same": (says_the_same, [[("data", 0), ("text", "One two three four."), ("text", "done")]]),
    "else": (says_something_else, [[("data", 0), ("text", f"One by {epoch} end")] for epoch in range(1, 6)]),
    "goes on": (goes_on, [[("text", "One two three four.")]]),
}


async def tell(world: World, tap: CrashAt, task: Callable[[chat.Run], Awaitable[None]]) -> None:
    agents = partial(echo_agents, {"task": task})
    acknowledged: dict[str, int] = {}
    await world.sessions().sessions.create(HOME, spec("task"))
    acknowledged["hello"] = await say(world.sessions(), "hello")
    tap.is_armed = True
    async with world.process(tap, agents()):
        await anyio.sleep(1.5)
        tap.is_armed = tap.is_dead
    if tap.is_dead:
        # What a process that owns its data does before anything else.
        world.engine.jobs.clear()
        await world.sessions(agents=agents()).sweep.recover()
    async with world.process(agents=agents()):
        await until_rest(world)
    await check_promises(world, acknowledged)


@pytest.mark.parametrize("name", WHOLE)
def test_a_process_may_die_at_any_step_of_an_answer(name: str) -> None:
    task, expected = WHOLE[name]
    for step in range(200):
        tap, world = CrashAt(step), World()
        run_virtually(partial(tell, world, tap, task))
        chunks = chunks_of(run_virtually(partial(world.records, Io.OUT)))
        starts = [chunk for chunk in chunks if chunk["type"] == "start"]
        where = f"dead at step {step}: {tap.seen[-3:]}"
        assert len({chunk["messageId"] for chunk in starts}) == 1, where
        assert read(chunks) in expected, where
        assert [chunk["type"] for chunk in chunks].count("finish") == 1, where
        if name != "else":
            assert "data-restart" not in {chunk["type"] for chunk in chunks}, where
            assert len(starts) == 1, where
        if not tap.is_dead:
            assert step > 10, "nothing was tried"
            return
    raise AssertionError("there are more steps than were tried")


# --- What is left of it ---------------------------------------------------------------------------


async def test_a_stop_that_came_while_nobody_lived_ends_what_is_there() -> None:
    world = World()
    await die_after(world, 0.15, says_the_same, said("hello"))
    await world.sessions().channels.append_text(world.session(), Io.IN, STOP)
    await recover(world, says_the_same)
    chunks = chunks_of(await world.records(Io.OUT))
    assert read(chunks) == [("data", 0), ("text", "One two ")]
    assert [chunk["type"] for chunk in chunks[-3:]] == ["text-end", "finish-step", "finish"]


async def test_an_attempt_that_has_less_to_say_takes_back_the_rest() -> None:
    world = World()

    async def says_less(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.data("x", turn.seq)

    await die_after(world, 0.15, says_the_same, said("hello"))
    await recover(world, says_less)
    chunks = chunks_of(await world.records(Io.OUT))
    assert read(chunks) == [("data", 0)]
    assert [chunk["type"] for chunk in chunks[-2:]] == ["finish-step", "finish"]


async def test_an_attempt_that_fails_leaves_what_is_there_and_says_so() -> None:
    world = World()

    async def fails(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                raise LookupError

    await die_after(world, 0.15, says_the_same, said("hello"))
    await recover(world, fails)
    kinds = [chunk["type"] for chunk in chunks_of(await world.records(Io.OUT))]
    assert kinds[-4:] == ["text-end", "error", "finish-step", "finish"]


async def test_an_answer_that_lost_its_beginning_to_a_trim_is_taken_back() -> None:
    """Readers who came before the trim have it all, so the answer must not just be given again beside it."""
    world = World()

    async def trims(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text("One ")
                await run.out.trim(run.out.tail - 1)
                await turn.text(spoken(WORDS))

    await die_after(world, 0.15, trims, said("hello"))
    await recover(world, says_the_same)
    chunks = chunks_of(await world.records(Io.OUT))
    kinds = [chunk["type"] for chunk in chunks]
    assert kinds.count("data-restart") == 1
    assert read(chunks[kinds.index("data-restart") :]) == WHOLE["same"][1][0]
    assert kinds[kinds.index("data-restart") - 1] == "text-end"


@pytest.mark.parametrize("way", ["too large", "out of time"])
async def test_an_attempt_that_gives_a_write_up_still_takes_back_what_was_there(way: str) -> None:
    """What takes back comes with the first write that is stored, not with one that is not."""
    world = World()

    async def gives_up(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                if way == "too large":
                    with suppress(RecordTooLargeError):
                        await turn.write({"type": "data-x", "data": "y"}, {"type": "data-x", "data": "x" * 2_000_000})
                else:
                    with anyio.CancelScope() as scope:
                        scope.cancel()
                        await turn.data("x", "y")
                await turn.text("Sorry.")

    await die_after(world, 0.15, says_the_same, said("hello"))
    await recover(world, gives_up)
    chunks = chunks_of(await world.records(Io.OUT))
    assert read(chunks) == [("text", "Sorry.")]
    assert [chunk["type"] for chunk in chunks[-6:]] == [
        "start-step",
        "text-start",
        "text-delta",
        "text-end",
        "finish-step",
        "finish",
    ]


async def test_a_handed_over_turn_goes_on_in_the_same_message() -> None:
    world = World()

    async def moves(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text("One ")
                if run.record.version == 1:
                    await run.end_and_continue("upgrade")
                    return
                await turn.text("two")

    async with world.process(agents=echo_agents({"task": moves})) as sessions:
        await sessions.sessions.create(HOME, spec("task"))
        for text in ("a", "b"):
            await say(sessions, text)
        await until_rest(world)
    chunks = chunks_of(await world.records(Io.OUT))
    assert [chunk["type"] for chunk in chunks].count("start") == 2, "one for each message"
    assert [chunk.get("delta") for chunk in chunks if "delta" in chunk] == ["One ", "two", "One ", "two"]


# --- Long answers ---------------------------------------------------------------------------------


class StrictLog(memory.InMemoryChannelLog):
    """Takes no more in one append than every log does."""

    async def append(
        self, channel: Channel, records: Sequence[NewRecord], *, guard: Guard, if_tail: int | None = None
    ) -> list[Appended]:
        size = sum(record.metered_size for record in records)
        if len(records) > 1_000 or size > 1_048_576:
            raise RecordTooLargeError(size, 1_048_576)
        return await super().append(channel, records, guard=guard, if_tail=if_tail)


@attrs.define
class DieAfterAppends(Tap):
    """Kills its process after a number of appends."""

    left: int
    is_dead: bool = False

    async def before(self, call: str) -> None:
        if self.is_dead:
            raise Crash

    async def after(self, call: str) -> None:
        self.left -= call == "StrictLog.append"
        self.is_dead = self.is_dead or self.left == 0
        await self.before(call)


@pytest.mark.parametrize("appends_before_death", [0, 1, 2])
@pytest.mark.parametrize("is_shorter", [False, True])
async def test_a_long_answer_that_is_taken_back_is_written_in_pieces(
    is_shorter: bool, appends_before_death: int
) -> None:
    world, lives = World(), list[str]()
    world.log = StrictLog(world.clock)

    async def counts(run: chat.Run) -> None:
        async for turn in run.turns():
            lives.append(run.id)
            count = 2_500 if len(lives) == 1 else 2_400
            async with turn:
                for number in range(0, count, 100):
                    await turn.write(*({"type": "data-x", "data": n} for n in range(number, number + 100)))
                if len(lives) == 1:
                    await anyio.sleep_forever()
                if not is_shorter:
                    await turn.data("x", "another end")

    await die_after(world, 1, counts, said("hello"))
    if appends_before_death:
        tap = DieAfterAppends(appends_before_death)
        async with world.process(tap, echo_agents({"task": counts})):
            await anyio.sleep(60)
        assert tap.is_dead
    await recover(world, counts)
    chunks = chunks_of(await world.records(Io.OUT))
    kinds = [chunk["type"] for chunk in chunks]
    assert (kinds.count("start"), kinds.count("data-restart")) == (1, 1)
    shown = [chunk["data"] for chunk in chat.shown_chunks(chunks) if chunk["type"] == "data-x"]
    assert shown == [*range(2_400), *([] if is_shorter else ["another end"])]
