"""Doing without a system that only helps.

What fails is told to the observer and goes no further. A system that does not answer at all would still cost every call its
timeout. Therefore after a failure it is left alone for a moment, and then a single call tries it again while the others still
pass it by.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import ParamSpec, TypeVar

import anyio
import attrs

from sessions_core.domain.events import SystemFailed
from sessions_core.errors import UnavailableError
from sessions_core.ports.observer import Observer

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


@attrs.define(eq=False)
class Tolerance:
    """Calls a system while it can be reached, and does nothing while it cannot.

    Attributes:
        pause: How long it is left alone after a failure.
    """

    observer: Observer
    pause: timedelta = timedelta(seconds=1)
    _is_failing: bool = attrs.field(init=False, default=False)
    _next_try: float = attrs.field(init=False, default=0.0)

    async def attempt(
        self, step: str, otherwise: S, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T | S:
        """Return what *call* returns, or *otherwise* if it fails or is not made. *step* is what observers are told."""
        if self._is_failing and not self._is_time():
            return otherwise
        try:
            answer = await call(*args, **kwargs)
        except UnavailableError as error:
            self._is_failing = True
            self._postpone()
            self.observer(SystemFailed(step=step, error=str(error)))
            return otherwise
        self._is_failing = False
        return answer

    def _is_time(self) -> bool:
        """Tell whether this call is the one that tries again; if so, the next such call comes a pause later."""
        if anyio.current_time() < self._next_try:
            return False
        self._postpone()
        return True

    def _postpone(self) -> None:
        self._next_try = anyio.current_time() + self.pause.total_seconds()
