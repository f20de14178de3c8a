"""Agents that do on demand what the chat page has to cope with. Served by the servers of these tests."""

from __future__ import annotations

from sessions_core.chat import Agents, Run
from sessions_server.bundled import approval, echo

agents = Agents()
agents.task("echo")(echo)
agents.task("approval")(approval)


@agents.task("guard")
async def guard(run: Run) -> None:
    """Ask before it does anything, and leave at once after each turn, so that every answer is another run's."""
    turn = await run.next_turn()
    if turn is None:
        return
    async with turn:
        match turn.text_input:
            case "yes":
                await turn.text("Done: the bridge is up.")
            case "no":
                await turn.text("Left as it is.")
            case _:
                await turn.text("That needs your word.")
                await turn.data("approval", {"id": "a1", "question": "Raise the bridge?", "options": ["yes", "no"]})


@agents.task("broken")
async def broken(run: Run) -> None:
    """Fail in the middle of every answer."""
    async for turn in run.turns():
        async with turn:
            await turn.text("I was about to say")
            raise RuntimeError("a secret reason")


@agents.task("mirror")
async def mirror(run: Run) -> None:
    """Say back exactly what was said, in parts of several kinds."""
    async for turn in run.turns():
        async with turn:
            await turn.write(
                {"type": "reasoning-start", "id": "r"}, {"type": "reasoning-delta", "id": "r", "delta": "Hm."}
            )
            await turn.text(turn.text_input)
            await turn.data("note", {"html": turn.text_input})
