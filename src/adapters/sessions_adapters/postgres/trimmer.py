"""Deleting, little by little, the records that were let go.

The head row says at once what is no longer kept, and no reader sees it any more. The rows are deleted in small steps, each
in a transaction of its own, so that a long channel does not hold its writers up. The head row also says how far that has
come: what a process leaves undone, another one finds.

Members of channels whose longest wait is over go as well: nobody is waiting any more, but whoever ended the wait may have
died, or another may just have registered it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

import attrs

from sessions_adapters.postgres.connecting import Connection, Pool
from sessions_adapters.postgres.failures import FAILURES

FIND_UNSWEPT: Final = "select id from channel where swept_seq < first_seq limit 100"
SWEEP: Final = "select sweep_channel($1, $2)"
FORGET_WAITS: Final = """
    delete from wait_member member where keep_until < now_or($1) and not exists (
        select from wait_member longer where longer.channel = member.channel and longer.keep_until >= now_or($1)
    )
"""

STEP: Final = 500
PAUSE_SECONDS: Final = 30.0
"""After so long it is looked for what other processes have left undone."""
_logger = logging.getLogger("sessions.postgres")
_logger.addHandler(logging.NullHandler())


@attrs.define(eq=False)
class Trimmer:
    """Sweeps channels, those that were trimmed here at once."""

    _pool: Pool
    _patience: float
    _at: Callable[[], datetime | None]
    _bell: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)
    _forgets_at: float = attrs.field(init=False, default=0.0)

    def wake(self) -> None:
        """Take note that there is something to delete."""
        self._bell.set()

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            try:
                await self._sweep_all()
            except FAILURES:
                _logger.warning("trimmed records could not be deleted; this is tried again", exc_info=True)
            try:
                async with asyncio.timeout(PAUSE_SECONDS):
                    await self._bell.wait()
            except TimeoutError:
                continue

    async def _sweep_all(self) -> None:
        self._bell.clear()
        async with self._pool.acquire(timeout=self._patience) as connection:
            await self._forget_waits(connection)
            while rows := await connection.fetch(FIND_UNSWEPT):
                for row in rows:
                    while await connection.fetchval(SWEEP, row["id"], STEP):
                        pass

    async def _forget_waits(self, connection: Connection) -> None:
        """Look through all members, but not as often as something is trimmed: no trim makes one of them go."""
        now = asyncio.get_running_loop().time()
        if now >= self._forgets_at:
            await connection.execute(FORGET_WAITS, self._at())
            self._forgets_at = now + PAUSE_SECONDS
