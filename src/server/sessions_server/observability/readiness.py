"""Whether the stores answer: asked at most once a second, for all who want to know.

Anybody may ask this server, and it costs the stores a read and a write. Kept for a moment, and asked by one at a time, it
costs them the same whoever asks how often.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final

import attrs

from sessions_core.errors import UnavailableError
from sessions_core.facade import Sessions

FRESH_SECONDS: Final = 1.0


@attrs.define(eq=False)
class Readiness:
    """Remembers the last answer."""

    _sessions: Sessions
    _monotonic: Callable[[], float] = time.monotonic
    _asking: asyncio.Lock = attrs.field(init=False, factory=asyncio.Lock)
    _asked_at: float = attrs.field(init=False, default=-math.inf)
    _answer: bool = attrs.field(init=False, default=False)

    async def look(self) -> bool:
        """Tell whether the stores can be read and written, or could a second ago."""
        async with self._asking:
            if self._monotonic() - self._asked_at > FRESH_SECONDS:
                self._answer = await self._ask()
                self._asked_at = self._monotonic()
            return self._answer

    async def _ask(self) -> bool:
        try:
            await self._sessions.check()
        except UnavailableError:
            return False
        return True
