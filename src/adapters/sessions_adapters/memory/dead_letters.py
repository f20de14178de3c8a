"""Dead letters in memory."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from anyio.lowlevel import checkpoint

from sessions_core.ports.dead_letters import DeadLetter, DeadLetters


@attrs.define(eq=False)
class InMemoryDeadLetters(DeadLetters):
    """Keeps them in a list."""

    _letters: list[DeadLetter] = attrs.field(init=False, factory=list)

    async def store(self, letters: Sequence[DeadLetter]) -> int:
        await checkpoint()
        before = len(self._letters)
        for letter in letters:
            if not any(letter.is_same_as(kept) for kept in self._letters):
                self._letters.append(letter)
        return len(self._letters) - before

    async def count(self) -> int:
        await checkpoint()
        return len(self._letters)

    async def list_latest(self, limit: int) -> list[DeadLetter]:
        await checkpoint()
        return self._letters[::-1][:limit]
