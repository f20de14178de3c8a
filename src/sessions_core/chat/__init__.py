"""Chat on top of sessions: turns that speak the AI SDK's UI-message chunks.

::

    from sessions_core.chat import Agents, Run

    agents = Agents()

    @agents.task("echo")
    async def echo(run: Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text(f"you said: {turn.text_input}")

What travels on ``in`` and ``out`` is listed in docs/reference/records.md: a turn begins with a ``message`` record on
``in`` and always ends with a ``turn-complete`` on ``out`` that names it, also when it was stopped or failed. A service that
sends messages itself reads what was answered with :func:`read_answer`.
"""

from sessions_core.chat.answers import Answer, read_answer
from sessions_core.chat.chunks import RESTART, START, Chunk, shown_chunks
from sessions_core.chat.inputs import (
    ACTION,
    CLOSE,
    MESSAGE,
    REGENERATE,
    STOP,
    SUBMIT,
    Input,
    action_message,
    close_message,
    regenerate_message,
    stop_message,
    text_of,
    user_message,
)
from sessions_core.chat.partial import PartialAnswer
from sessions_core.chat.turns import Agents, ChatTask, Run, Turn

__all__ = [
    "ACTION",
    "CLOSE",
    "MESSAGE",
    "REGENERATE",
    "RESTART",
    "START",
    "STOP",
    "SUBMIT",
    "Agents",
    "Answer",
    "ChatTask",
    "Chunk",
    "Input",
    "PartialAnswer",
    "Run",
    "Turn",
    "action_message",
    "close_message",
    "read_answer",
    "regenerate_message",
    "shown_chunks",
    "stop_message",
    "text_of",
    "user_message",
]
