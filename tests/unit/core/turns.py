"""Tasks of chats, and what their turns have written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio

from sessions_core import chat
from sessions_core.domain.channel import Io, Record, RecordKind
from sessions_core.facade import Sessions
from unit.core.chats import HOME, NAME, data_of, echo_agents, spec
from unit.core.promises import until_rest
from unit.core.world import World


def agents(task: Any) -> chat.Agents:
    return echo_agents({"task": task})


def written(records: list[Record]) -> list[str]:
    """Return the types of chunks and the subtypes of control records, with what the latter cover."""
    result = []
    for record in records:
        if record.kind is RecordKind.DATA:
            result.append(data_of(record)["type"])
        elif record.control is not None:
            result.append(f"{record.control}:{record.header('session-in-event-id')}")
    return result


async def append(sessions: Sessions, text: str) -> int:
    session = await sessions.sessions.get(HOME.id, NAME)
    return (await sessions.channels.append_text(session, Io.IN, text)).seq


async def talk(world: World, task: Any, *texts: str, pause: float = 1.0, **config: Any) -> list[Record]:
    """Append *texts*, a pause after each, let everything come to rest, and return what was written."""
    async with world.process(agents=agents(task)) as sessions:
        await sessions.sessions.create(HOME, spec("task", **config))
        for text in texts:
            await append(sessions, text)
            await anyio.sleep(pause)
        await until_rest(world)
    return await world.records(Io.OUT)


async def plain(run: chat.Run) -> None:
    async for turn in run.turns():
        async with turn:
            await turn.text(f"{turn.trigger} {turn.text_input}")


async def slow(run: chat.Run) -> None:
    async def words() -> AsyncIterator[str]:
        for number in range(20):
            yield f"{number} "
            await anyio.sleep(0.1)

    async for turn in run.turns():
        async with turn:
            await turn.text(words())


PLAIN = ["start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"]


def data_of_type(record: Record) -> str | None:
    return data_of(record)["type"] if record.kind is RecordKind.DATA else None


async def outputs_of(world: World) -> list[Any]:
    return [record.data for record in await world.records(Io.OUT) if record.kind is RecordKind.DATA]
