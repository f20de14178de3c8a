"""Tasks for the tests of workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import anyio

from sessions_core.chat import Agents, Run
from sessions_server.bundled import echo

agents = Agents()
agents.task("echo")(echo)


@agents.task("who")
async def who(run: Run) -> None:
    """Say which process answers."""
    async for turn in run.turns():
        async with turn:
            await turn.text(f"{turn.text_input} by {os.getpid()}")


@agents.task("block")
async def block(run: Run) -> None:
    """Block the event loop for as many seconds as the user says, then answer."""
    async for turn in run.turns():
        async with turn:
            time.sleep(float(turn.text_input))  # noqa: ASYNC251 - what it is for
            await turn.text(f"slept {turn.text_input} in attempt {run.record.attempt} of {run.id}")


@agents.task("versioned")
async def versioned(run: Run) -> None:
    """Say which version answers; hand over, in the middle of a turn, once that version is told to go."""
    version = os.environ["SESSIONS_WORKER_VERSION"]
    gone = anyio.Path(os.environ["UPGRADES"]) / version
    async for turn in run.turns():
        async with turn:
            if await gone.exists():
                await run.end_and_continue("upgrade")
                return
            await turn.text(f"{turn.text_input} by version {version}")


@agents.task("stopped")
async def stopped(run: Run) -> None:
    """Note the moment at which the coroutine is cancelled."""
    async for turn in run.turns():
        async with turn:
            try:
                await turn.text("working")
                await anyio.sleep_forever()
            finally:
                Path(turn.text_input).write_text(repr(time.time()))


@agents.task("fatal")
async def fatal(run: Run) -> None:
    """Answer, unless the user says ``die``: then kill the process."""
    async for turn in run.turns():
        async with turn:
            await turn.text(f"{turn.text_input} begun. ")
            if turn.text_input == "die":
                os.kill(os.getpid(), signal.SIGKILL)


@agents.task("indiscreet")
async def indiscreet(run: Run) -> None:
    """Fail with what the user says in the error."""
    async for turn in run.turns():
        raise ConnectionRefusedError(turn.text_input * 1000)


@agents.task("signed")
async def signed(run: Run) -> None:
    """Answer in several pieces, each of which says under which epoch it was written."""
    signature = f"<{run.record.epoch}>"
    async for turn in run.turns():
        async with turn:
            await turn.text(f"{signature}you said: ")
            await anyio.sleep(0.01)
            await turn.text(f"{signature}{turn.text_input}")
