"""The tasks that come with the server, for a first look and for tests.

``approval`` and ``counter`` keep their state where everything else of a session is kept: on ``out``. So it does not
matter which run answers, nor when.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import anyio
import attrs

from sessions_core.chat import ACTION, SUBMIT, Agents, Run, Turn
from sessions_core.domain.json_values import as_object

SLOW_DELTAS: Final = 40
SLOW_PAUSE: Final = 0.1
APPROVAL: Final = "approval"
COUNT: Final = "count"
YES: Final = frozenset({"yes", "y", "ok", "approve"})
NO: Final = frozenset({"no", "n", "deny"})

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


@agents.task("counter")
async def counter(run: Run) -> None:
    """Count the user's messages over all runs of the session."""
    async for turn in run.turns():
        async with turn:
            with anyio.CancelScope(shield=True):  # A message counts, also one whose answer is stopped at once.
                count = (await turn.last_data(COUNT) or 0) + (turn.trigger == SUBMIT)
                await turn.data(COUNT, count)
            await turn.text(f"That is message number {count}.")


@attrs.frozen
class Question:
    """Something that the user has to approve."""

    id: str
    subject: str

    def part(self, state: str) -> dict[str, Any]:
        """Return what a page needs in order to show the question, with buttons while it is ``open``."""
        question = f"May I go on with: {self.subject}?"
        return {"id": self.id, "subject": self.subject, "question": question, "options": ["yes", "no"], "state": state}


@agents.task("approval")
async def approval(run: Run) -> None:
    """Ask before doing what the user wants; the answer may come at any time, a day and several runs later too."""
    async for turn in run.turns():
        async with turn:
            question = await _open_question(turn)
            if question is None:
                await _ask(turn)
            else:
                await _decide(turn, question)


async def _open_question(turn: Turn) -> Question | None:
    part = as_object(await turn.last_data(APPROVAL))
    return Question(part["id"], part["subject"]) if part and part.get("state") == "open" else None


async def _ask(turn: Turn) -> None:
    subject = turn.text_input.strip() if turn.trigger == SUBMIT else ""
    if not subject or _read_word(subject) is not None:
        # Also a yes or no that comes too late, as from a second screen: nobody wants that to be done.
        await turn.text("Tell me what to do, and I ask before I do it.")
        return
    await _put(turn, Question(f"approval-{turn.seq}", subject))


async def _put(turn: Turn, question: Question) -> None:
    part = question.part("open")
    await turn.text(f"{part['question']} Answer yes or no.")
    await turn.data(APPROVAL, part, id=question.id)


async def _decide(turn: Turn, question: Question) -> None:
    is_approved = _read_answer(turn, question)
    if is_approved is None:
        await _put(turn, question)
        return
    await turn.data(APPROVAL, question.part("approved" if is_approved else "denied"), id=question.id)
    await turn.text(f"Approved, done: {question.subject}" if is_approved else f"Denied, not done: {question.subject}")


def _read_answer(turn: Turn, question: Question) -> bool | None:
    """Read a yes or a no; None if it is neither, or meant for another question."""
    said = turn.text_input if turn.trigger == SUBMIT else ""
    if turn.trigger == ACTION:
        action = as_object(turn.action) or {}
        said = str(action.get("type")) if action.get("id", question.id) == question.id else ""
    return _read_word(said)


def _read_word(said: str) -> bool | None:
    word = said.strip().strip(".!").strip().lower()
    return True if word in YES else False if word in NO else None
