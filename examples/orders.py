"""The agent of the order desk: it answers an order with a question, and places it once somebody has decided.

Between the two may lie days, another run and a restart. The agent keeps no state of its own: what was ordered is on the
session's `in` channel, and the decision names it by its seq.
"""

from collections.abc import AsyncIterator
from typing import Any

import anyio

from sessions_core import Io
from sessions_core.chat import Agents, Input, Run, Turn, action_message, text_of

agents = Agents()


@agents.task("orders")
async def take_orders(run: Run) -> None:
    async for turn in run.turns():
        async with turn:
            if turn.trigger == "action":
                await turn.text(await carry_out(turn))
            else:
                await turn.text(look_up(turn.text_input))
                await turn.data("decision-wanted", {"order": turn.seq})


async def look_up(order: str) -> AsyncIterator[str]:
    for item in order.split(","):
        await anyio.sleep(0.05)  # stands for a question to the supplier
        yield f"{item.strip()}: in stock. "


async def carry_out(turn: Turn) -> str:
    number, approved = turn.action["order"], turn.action["approve"]
    ordered = await find_order(turn.run, number)
    if ordered is None:
        return f"There is no order {number}."
    return f"Ordered: {ordered}" if approved else f"Not ordered: {ordered}"


async def find_order(run: Run, number: int) -> str | None:
    messages = await run.read_back(Io.IN, before=number + 1, limit=1)
    given = Input.parse(messages[0].data) if messages and messages[0].seq == number else None
    return text_of(given.payload["message"]) if given and "message" in given.payload else None


def decision(number: int, *, approve: bool) -> dict[str, Any]:
    """The record with which a client decides an order: an action of the chat protocol."""
    return action_message({"order": number, "approve": approve})
