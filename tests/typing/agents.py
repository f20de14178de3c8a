"""The types of what a task author uses. Checked, never run: each line is an assertion for the type checkers.

What must be refused carries an ignore; a checker that accepts it complains about the ignore.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false, reportUnusedCoroutine=false

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, assert_type

import sessions_core
from sessions_core import HandOver, Inbox, Io, Message, Outbox, RunId, Session, chat
from sessions_core.agents import Recovered
from sessions_core.chat import Agents, Chunk, PartialAnswer, Run, Turn, user_message

agents = Agents()
raw = sessions_core.Agents()


@agents.task("chat")
async def answer(run: Run) -> None:
    async for turn in run.turns():
        assert_type(turn, Turn)
        async with turn as same:
            assert_type(same, Turn)
            assert_type(turn.seq, int)
            assert_type(turn.trigger, str)
            assert_type(turn.text_input, str)
            assert_type(turn.message, Mapping[str, Any] | None)
            assert_type(turn.is_stopped, bool)
            assert_type(turn.message_id, str)
            assert_type(turn.recovered, PartialAnswer)
            assert_type(turn.recovered.text, str)
            assert_type(turn.recovered.chunks, tuple[Chunk, ...])
            assert_type(await turn.text("at once"), None)
            await turn.text(words())
            await turn.pipe(chunks())
            await turn.write({"type": "start-step"}, {"type": "finish-step"})
            await turn.data("weather", {"sun": True}, id="one")


@raw.task("raw")
async def work(run: sessions_core.Run) -> None:
    assert_type(run.id, RunId)
    assert_type(run.inbox, Inbox)
    assert_type(run.out, Outbox)
    assert_type(run.session, Session)
    assert_type(run.is_continuation, bool)
    assert_type(run.payload, Mapping[str, Any])
    assert_type(await run.inbox.wait(), Message | None)
    assert_type(await run.inbox.wait(1.5), Message | None)
    assert_type(await run.inbox.wait_with_idle_timeout(30), Message | None)
    assert_type(run.inbox.peek(), Message | None)
    async for message in run.inbox:
        assert_type(message, Message)
        assert_type(message.seq, int)
    assert_type(await run.out.append(1, "two", {"three": 3}), int)
    assert_type(await run.out.pipe(words()), int)
    assert_type(await run.out.control("note", {"a": "b"}), int)
    assert_type(await run.out.trim(3), int)
    assert_type(await run.recovered(), Recovered)
    assert_type(await run.session_token(), str | None)
    assert_type(await run.read_back(Io.IN, 10, 5), list[Message])
    assert_type(await run.end_and_continue("upgrade"), HandOver)
    assert_type(await run.close(), None)


async def words() -> AsyncIterator[str]:
    yield "a"


async def numbers() -> AsyncIterator[int]:
    yield 1


async def chunks() -> AsyncIterator[dict[str, Any]]:
    yield {"type": "start-step"}


assert_type(user_message("hello", id="u-1", metadata={"a": 1}), dict[str, Any])
assert_type(chat.Input.parse("{}"), chat.Input | None)
assert_type(agents.names, tuple[str, ...])


# --- What must be refused -------------------------------------------------------------------------


def not_async(run: Run) -> None: ...


async def without_a_run() -> None: ...


async def takes_text(text: str) -> None: ...


agents.task("sync")(not_async)  # type: ignore[arg-type]
agents.task("none")(without_a_run)  # type: ignore[arg-type]
agents.task("text")(takes_text)  # type: ignore[arg-type]
agents.task(7)  # type: ignore[arg-type]
user_message(7)  # type: ignore[arg-type]
user_message("hello", "u-1")  # type: ignore[call-arg]


async def misuse(run: Run, turn: Turn) -> None:
    await turn.text(7)  # type: ignore[arg-type]
    await turn.text(numbers())  # type: ignore[arg-type]
    await turn.pipe(words())  # type: ignore[arg-type]
    await turn.write("text")  # type: ignore[arg-type]
    turn.recovered.text = "x"  # type: ignore[misc]
    run.id = "run_1"  # type: ignore[misc, assignment]
    await run.inbox.wait("soon")  # type: ignore[arg-type]
    await run.out.pipe(["a", "list"])  # type: ignore[arg-type]
    async for _ in run:  # type: ignore[attr-defined]
        pass
    with turn:  # type: ignore[attr-defined]
        pass
