from sessions_core.chat import Agents, Run

agents = Agents()


@agents.task("echo")
async def echo(run: Run) -> None:
    async for turn in run.turns():
        async with turn:  # always ends in a turn-complete, also after an error or a stop
            await turn.text(f"you said: {turn.text_input}")
