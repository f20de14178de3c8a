"""Systems that give no answer for a while: everything is delayed, nothing is lost or blamed on the agent."""

from __future__ import annotations

import anyio
import pytest

from sessions_core.domain.events import InputGivenUp
from sessions_core.errors import (
    ChannelUnavailableError,
    DispatcherUnavailableError,
    SessionsError,
    StoreUnavailableError,
)
from unit.core.chats import HOME, say, spec
from unit.core.promises import check_promises, until_rest
from unit.core.taps import Tap
from unit.core.world import World, run_virtually

ERRORS: dict[str, type[SessionsError]] = {
    "ChannelLog": ChannelUnavailableError,
    "EngineDispatcher": DispatcherUnavailableError,
}


class Outage(Tap):
    """Lets every call of some ports fail between two moments."""

    def __init__(self, ports: set[str], begin: float, end: float) -> None:
        self.ports, self.begin, self.end = ports, begin, end

    async def before(self, call: str) -> None:
        port = call.partition(".")[0]
        if port in self.ports and self.begin <= anyio.current_time() < self.end:
            error = ERRORS.get(port, StoreUnavailableError)
            raise error


@pytest.mark.parametrize("begin", [0.0, 0.05, 3.0, 3.25])
@pytest.mark.parametrize("length", [1.0, 20.0])
@pytest.mark.parametrize(
    "ports",
    [
        pytest.param({"ChannelLog"}, id="log"),
        pytest.param({"SessionStore", "RunStore", "Backlog"}, id="store"),
        pytest.param({"RunStore"}, id="runs"),
        pytest.param({"WaitRegistry"}, id="registry"),
        pytest.param({"EngineDispatcher"}, id="engine"),
        pytest.param({"ChannelLog", "SessionStore", "RunStore", "Backlog", "EngineDispatcher"}, id="everything"),
    ],
)
def test_an_outage_only_delays(ports: set[str], begin: float, length: float) -> None:
    async def main() -> None:
        world, acknowledged = World(), {}
        async with world.process(Outage(ports, begin, begin + length)) as sessions:

            async def patiently(text: str) -> None:
                while True:
                    try:
                        await sessions.sessions.create(HOME, spec())
                        acknowledged[text] = await say(sessions, text)
                    except SessionsError:
                        await anyio.sleep(0.5)
                    else:
                        return

            for text in ("one", "two", "three"):
                await patiently(text)
                await anyio.sleep(3)
            await until_rest(world)
        await check_promises(world, acknowledged)
        assert world.observer.of(InputGivenUp) == []

    run_virtually(main)
