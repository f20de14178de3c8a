"""How long an append is tried."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import attrs

from sessions_adapters.s2.failures import is_final
from sessions_core.errors import ChannelUnavailableError

FIRST_PAUSE: Final = 0.025
LONGEST_PAUSE: Final = 1.0

T = TypeVar("T")


@attrs.define(eq=False)
class Backoff:
    """Pauses between the attempts at one thing, each about twice as long as the one before, up to a deadline.

    Attributes:
        deadline: When it is given up, by the clock of the loop.
    """

    deadline: float
    _pause: float = attrs.field(init=False, default=FIRST_PAUSE)

    async def attempt(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make *call* once.

        Raises:
            TimeoutError: It was still under way at the deadline.
        """
        async with asyncio.timeout_at(self.deadline):
            return await call()

    async def pause(self, error: Exception) -> None:
        """Wait before the next attempt.

        Raises:
            ChannelUnavailableError: Another attempt would fail as well, or come too late; *error* is the cause.
        """
        pause = self._pause * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, guards nothing
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self.check(error, pause)
        await asyncio.sleep(pause)

    def check(self, error: Exception, pause: float = 0) -> None:
        """Go on without a pause, or see whether there is time for one of *pause* seconds. Raises like :meth:`pause`."""
        if is_final(error) or asyncio.get_running_loop().time() + pause >= self.deadline:
            raise ChannelUnavailableError from error
