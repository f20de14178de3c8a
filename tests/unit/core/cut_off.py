"""Answers in the middle of which their process dies, and the process that comes after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio

from sessions_core import chat
from sessions_core.domain.channel import Io, Record, RecordKind
from unit.core.chats import HOME, NAME, data_of, echo_agents, spec
from unit.core.promises import check_rest, until_rest
from unit.core.taps import CrashAt
from unit.core.world import World

WORDS = ("One ", "two ", "three ", "four.")


async def spoken(words: tuple[str, ...]) -> AsyncIterator[str]:
    for word in words:
        yield word
        await anyio.sleep(0.1)


async def says_the_same(run: chat.Run) -> None:
    async for turn in run.turns():
        async with turn:
            await turn.data("x", turn.seq)
            await turn.text(spoken(WORDS))
            await turn.text("done")


def chunks_of(records: list[Record]) -> list[Any]:
    return [data_of(record) for record in records if record.kind is RecordKind.DATA]


async def die_after(world: World, seconds: float, task: Callable[[chat.Run], Awaitable[None]], *texts: str) -> None:
    """Run *task* over *texts* and let its process die after *seconds*."""
    tap = CrashAt(0)
    async with world.process(tap, echo_agents({"task": task})):
        quick = world.sessions()
        session = (await quick.sessions.create(HOME, spec("task"))).session
        for text in texts:
            await quick.channels.append_text(session, Io.IN, text)
        await anyio.sleep(seconds)
        tap.is_armed = True
        await anyio.sleep(20)


async def recover(world: World, task: Callable[[chat.Run], Awaitable[None]], *texts: str) -> None:
    """Run *task* in a new process, and say *texts*."""
    async with world.process(agents=echo_agents({"task": task})) as sessions:
        session = await sessions.sessions.get(HOME.id, NAME)
        for text in texts:
            await sessions.channels.append_text(session, Io.IN, text)
        await until_rest(world)
    await check_rest(world)
