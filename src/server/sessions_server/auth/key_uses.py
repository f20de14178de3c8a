"""When additional keys were last used: noted on the way of a request, stored beside it and rarely."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import attrs

from sessions_core.domain.bounded import BoundedDict
from sessions_core.domain.environment import KeyGrant
from sessions_core.errors import UnavailableError
from sessions_core.ports.environment_store import AdditionalKeyStore
from sessions_server.observability.logs import logger

PAUSE_SECONDS: Final = 60.0
"""The store writes a use every five minutes. It is asked more often, so that clocks that differ a little cost a minute."""
REMEMBERED: Final = 10_000


@attrs.define(eq=False)
class KeyUses:
    """Tells the store of uses, in tasks of its own."""

    _store: AdditionalKeyStore
    _monotonic: Callable[[], float]
    _told: BoundedDict[str, float] = attrs.field(init=False, factory=lambda: BoundedDict(REMEMBERED))
    _telling: set[asyncio.Task[None]] = attrs.field(init=False, factory=set)

    def note(self, grant: KeyGrant) -> None:
        """Take notice of a use. Whoever showed the key neither waits for this nor learns of trouble with it."""
        if grant.key_id is None:
            return
        told, now = self._told.get(grant.key_id), self._monotonic()
        if told is not None and now - told < PAUSE_SECONDS:
            return
        self._told[grant.key_id] = now
        task = asyncio.create_task(self._tell(grant))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def settle(self, patience: float) -> None:
        """Wait for what is being stored, but no longer than *patience* seconds."""
        if self._telling:
            _, busy = await asyncio.wait(self._telling, timeout=patience)
            for task in busy:
                task.cancel()

    async def _tell(self, grant: KeyGrant) -> None:
        assert grant.key_id is not None
        try:
            await self._store.record_use(grant.environment.id, grant.key_id)
        except UnavailableError as error:
            self._told.pop(grant.key_id, None)
            logger.warning("the use of a key was not stored", extra={"key": grant.key_id, "error": str(error)})
