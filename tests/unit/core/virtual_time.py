"""An event loop for asyncio on which nobody really sleeps, as trio's ``MockClock`` has it for trio."""

import asyncio
from collections.abc import Callable
from typing import Any


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as nothing else is left to do."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual = 0.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        selector.select = self._jumping(selector.select)

    def _jumping(self, select: Callable[[float], list[Any]]) -> Callable[[float | None], list[Any]]:
        def jump(timeout: float | None = None) -> list[Any]:
            events = select(0)
            if events:
                return events
            if timeout is None:
                message = "every task waits and no timer is left: a deadlock"
                raise RuntimeError(message)
            self._virtual += timeout
            return events

        return jump

    def time(self) -> float:
        return self._virtual
