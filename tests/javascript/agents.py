"""The agents that the JavaScript clients talk to. What a text begins with says how it is answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Final

import anyio

from sessions_core.chat import Agents, Run, Turn

SLOW_DELTAS: Final = 30
PAUSE: Final = 0.1
ENDLESS: Final = 300
PREFIXES: Final = {"regenerate-message": "once more", "submit-message": "you said"}

agents = Agents()


@agents.task("echo")
async def echo(run: Run) -> None:
    """Say back what the user said.

    ``slow``: 30 deltas, 100 ms apart. ``fickle``: the same, but each run says something else. ``endless``: until it is stopped. ``fail``: raises in the middle of the answer.
    ``upgrade``: hands over to a new run, which answers. ``bye``: closes the session after the answer.
    """
    async for turn in run.turns():
        if turn.text_input.startswith("upgrade") and not run.is_continuation:
            await run.end_and_continue("upgrade")
            return
        async with turn:
            await _answer(turn)
        if turn.text_input.startswith("leave"):
            return


async def _answer(turn: Turn) -> None:
    said = turn.text_input
    if turn.trigger == "action":
        await turn.text(f"did {json.dumps(turn.action)}")
    elif said.startswith("slow"):
        await turn.text(_slowly(said, SLOW_DELTAS))
    elif said.startswith("fickle"):
        await turn.text(_slowly(turn.run.id, SLOW_DELTAS))
    elif said.startswith("endless"):
        await turn.text(_slowly(said, ENDLESS))
    else:
        await turn.text(f"{PREFIXES[turn.trigger]}: {said}")
    if said.startswith("fail"):
        raise RuntimeError("as it was told")
    if said.startswith("bye"):
        await turn.run.close("said bye")


async def _slowly(said: str, deltas: int) -> AsyncIterator[str]:
    yield f"you said: {said}"
    for number in range(1, deltas):
        await anyio.sleep(PAUSE)
        yield f" {number}"
