"""The core promises to run on any anyio backend, so its tests run on both, in virtual time: nobody really sleeps."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from trio.testing import MockClock


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


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(("asyncio", {"loop_factory": VirtualTimeLoop}), id="asyncio"),
        pytest.param(("trio", {"clock": MockClock(autojump_threshold=0)}), id="trio"),
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run each async test of the core once per backend."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend
