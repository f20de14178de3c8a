"""The tasks that come with the server, for a first look and for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import anyio

from sessions_core.chat import Agents, Run

SLOW_DELTAS: Final = 40
SLOW_PAUSE: Final = 0.1

agents = Agents()


@agents.task("echo")
async def echo(run: Run) -> None:
    """Say back what the user said; a text that starts with ``slow`` comes in 40 deltas, 100 ms apart."""
    async for turn in run.turns():
        async with turn:
            said = turn.text_input
            await turn.text(_slowly(said) if said.startswith("slow") else f"you said: {said}")


async def _slowly(said: str) -> AsyncIterator[str]:
    yield f"you said: {said}"
    for number in range(1, SLOW_DELTAS):
        await anyio.sleep(SLOW_PAUSE)
        yield f" {number}"
