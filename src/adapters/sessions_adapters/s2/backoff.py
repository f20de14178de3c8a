"""How long an append is tried again."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import attrs

from sessions_adapters.s2.failures import is_final
from sessions_core.errors import ChannelUnavailableError

FIRST_PAUSE: Final = 0.025
LONGEST_PAUSE: Final = 1.0


@attrs.define(eq=False)
class Backoff:
    """Pauses between the attempts at one thing, each about twice as long as the one before, up to a deadline."""

    deadline: float
    _pause: float = attrs.field(init=False, default=FIRST_PAUSE)

    @classmethod
    def of(cls, seconds: float) -> Backoff:
        """Begin now, and give up after *seconds*."""
        return cls(asyncio.get_running_loop().time() + seconds)

    async def pause(self, error: Exception) -> None:
        """Wait before the next attempt.

        Raises:
            ChannelUnavailableError: Another attempt would fail as well, or come too late; *error* is the cause.
        """
        self.check(error)
        pause = self._pause * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, guards nothing
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        await asyncio.sleep(pause)

    def check(self, error: Exception) -> None:
        """Go on without a pause. Raises like :meth:`pause`."""
        if is_final(error) or asyncio.get_running_loop().time() >= self.deadline:
            raise ChannelUnavailableError from error
