"""How the runs of a chat end, and what comes after them: closed, idle, draining, replaced."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sessions_core import chat
from sessions_core.domain.channel import SESSION_CLOSED, Io
from sessions_core.domain.events import RunEnded
from sessions_core.domain.status import RunStatus
from sessions_core.errors import SessionClosedError
from unit.core.chats import HOME, NAME, said, say, spec
from unit.core.promises import check_rest, until_rest
from unit.core.turns import PLAIN, agents, append, plain, slow, talk, written
from unit.core.world import World

# --- Replaced -------------------------------------------------------------------------------------


async def test_a_run_that_was_replaced_in_a_turn_writes_nothing_more(world: World) -> None:
    async def replaced(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                if turn.text_input == "move" and run.record.version == 1:
                    await turn.text("before")
                    await run.end_and_continue("upgrade")
                    await anyio.sleep(1)
                await turn.text("after")

    records = await talk(world, replaced, said("move"))
    again = ["finish-step", "data-restart", *PLAIN[1:]]
    assert written(records) == [*PLAIN[:5], "upgrade-required:None", *again, "turn-complete:0"]
    assert [run.status for run in world.runs()] == [RunStatus.CANCELED, RunStatus.COMPLETED_SUCCESSFULLY]


# --- Close ----------------------------------------------------------------------------------------


async def test_a_clients_close_ends_the_run_but_not_the_session(world: World) -> None:
    async with world.process(agents=agents(plain)) as sessions:
        await sessions.sessions.create(HOME, spec("task", idle=1000))
        await append(sessions, said("one"))
        await append(sessions, said("", trigger="close"))
        await anyio.sleep(2)
        assert [run.status for run in world.runs()] == [RunStatus.COMPLETED_SUCCESSFULLY]
        await append(sessions, said("two"))
        await anyio.sleep(2)
        assert [run.version for run in world.runs()] == [1, 2]
    turns = [name for name in written(await world.records(Io.OUT)) if name.startswith("turn")]
    assert turns == ["turn-complete:0", "turn-complete:2"]


async def test_a_close_from_outside_ends_an_idle_run_at_once(world: World) -> None:
    async with world.process(agents=agents(plain)) as sessions:
        await sessions.sessions.create(HOME, spec("task", idle=1000))
        await append(sessions, said("one"))
        await anyio.sleep(1)
        await sessions.sessions.close(HOME.id, NAME, "done")
        await anyio.sleep(1)
        await check_rest(world)
        assert [event.status for event in world.observer.of(RunEnded)] == [RunStatus.COMPLETED_SUCCESSFULLY]


async def test_a_close_from_outside_ends_a_busy_run_with_its_next_write(world: World) -> None:
    async with world.process(agents=agents(slow)) as sessions:
        await sessions.sessions.create(HOME, spec("task", idle=1000))
        await append(sessions, said("one"))
        await anyio.sleep(0.5)
        await sessions.sessions.close(HOME.id, NAME, "done")
        await anyio.sleep(1)
        await check_rest(world)
    assert (await world.records(Io.OUT))[-1].header(SESSION_CLOSED) == "true"
    assert len(world.runs()) == 1


async def test_a_run_may_close_its_session(world: World) -> None:
    async def closes(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text("goodbye")
            await run.close("said goodbye")

    records = await talk(world, closes, said("bye"))
    assert world.session().closed_reason == "said goodbye"
    assert records[-1].header("session-closed-reason") == "said goodbye"
    with pytest.raises(SessionClosedError):
        await say(world.sessions(), "hello?")


# --- Continuing, draining --------------------------------------------------------------------------


async def test_the_next_message_after_an_idle_time_starts_a_continuation(world: World) -> None:
    payloads: list[Any] = []

    async def notes(run: chat.Run) -> None:
        payloads.append((run.is_continuation, run.payload.get("previousRunId"), run.cursor))
        async for turn in run.turns():
            async with turn:
                await turn.text("x")

    await talk(world, notes, said("one"), said("two"), pause=10)
    first = world.runs()[0]
    assert payloads == [(False, None, -1), (True, first.id, 0)]


async def test_draining_ends_idle_runs_and_lets_busy_turns_finish(world: World) -> None:
    async with world.process(agents=agents(slow)) as sessions:
        await sessions.sessions.create(HOME, spec("task", idle=1000))
        await append(sessions, said("one"))
        await anyio.sleep(0.5)
        await append(sessions, said("two"))
    assert [n for n in written(await world.records(Io.OUT)) if n.startswith("turn")] == ["turn-complete:0"]
    assert [run.status for run in world.runs()] == [RunStatus.CANCELED]
    async with world.process(agents=agents(slow)):
        await until_rest(world)
    turns = [n for n in written(await world.records(Io.OUT)) if n.startswith("turn")]
    assert turns == ["turn-complete:0", "turn-complete:1"]
