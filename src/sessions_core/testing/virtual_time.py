"""An event loop for asyncio on which nobody really sleeps, as trio's ``MockClock`` has it for trio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

LAST_PATIENCE_SECONDS: Final = 5.0
"""How long, in real time, the world outside may take before tasks that wait without any timer are taken for a deadlock."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as nothing else is left to do.

    Args:
        io_patience: How long, in real time, to wait for the world outside (sockets, threads) before time jumps.
    """

    def __init__(self, io_patience: timedelta = timedelta()) -> None:
        super().__init__()
        self._virtual = 0.0
        self._patience = io_patience.total_seconds()
        selector: Any = vars(self)["_selector"]
        selector.select = self._jumping(selector.select)

    def _jumping(self, select: Callable[[float], list[Any]]) -> Callable[[float | None], list[Any]]:
        def jump(timeout: float | None = None) -> list[Any]:
            # With no timer left, only the world outside (a thread, say) can go on; that may take longer.
            longest = LAST_PATIENCE_SECONDS if timeout is None else self._patience
            events = select(0 if timeout == 0 else max(longest, self._patience))
            if events:
                return events
            if timeout is None:
                message = "every task waits and no timer is left: a deadlock"
                raise RuntimeError(message)
            self._virtual += timeout
            return events

        return jump

    def time(self) -> float:
        """Return the virtual time in seconds; it begins at 0."""
        return self._virtual
