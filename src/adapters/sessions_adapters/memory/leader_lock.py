"""Leadership among the tasks of one process."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import attrs

from sessions_core.ports.leader_lock import LeaderLock


@attrs.define(eq=False)
class InMemoryLeaderLock(LeaderLock):
    """Elects one task of this process per name. Leadership is never lost, so the scope is never cancelled."""

    _locks: dict[str, anyio.Lock] = attrs.field(init=False, factory=dict, repr=False)

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncGenerator[anyio.CancelScope]:
        async with self._locks.setdefault(name, anyio.Lock()):
            yield anyio.CancelScope()
