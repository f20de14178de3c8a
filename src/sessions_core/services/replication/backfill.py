"""Backfill: fills the index with sessions that are older than the change feed.

How this works
--------------
All sessions are read once, in the order of their ids, and written with versions that compare with those of the change feed
(:class:`~sessions_core.ports.session_scan.SessionScan`). So it goes on beside the replicator, and in any order with it: what
changed after it was read has a larger version and stays, deletions too. How far it has come is saved after each chunk; who
comes next goes on from there. A chunk that is written twice does no harm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final, TypeVar

import anyio
import attrs

from sessions_core.domain.events import BackfillAdvanced, SystemFailed
from sessions_core.errors import StoreUnavailableError
from sessions_core.ports.change_feed import Change, ChangeKind
from sessions_core.ports.clock import Clock
from sessions_core.ports.leader_lock import LeaderLock
from sessions_core.ports.observer import Observer
from sessions_core.ports.session_scan import BackfillProgress, ScanChunk, SessionScan
from sessions_core.services.replication.backoff import Backoff
from sessions_core.services.replication.config import ReplicatorConfig
from sessions_core.services.replication.delivery import Delivery
from sessions_core.services.replication.letters import letter_of_unreadable
from sessions_core.services.replication.telling import reason_of

T = TypeVar("T")

STEP: Final = "backfill"
CHUNK_SIZE: Final = 1000


@attrs.define(kw_only=True)
class Backfill:
    """Fills the index.

    Attributes:
        chunk_size: So many sessions are held at a time, at most.
    """

    scan: SessionScan
    delivery: Delivery
    leader: LeaderLock
    clock: Clock
    observer: Observer
    config: ReplicatorConfig = attrs.field(factory=ReplicatorConfig)
    chunk_size: int = CHUNK_SIZE

    async def run(self) -> BackfillProgress:
        """Go on with the pass that was not finished, or begin a new one; return how it ended.

        Waits for whoever does the same, and as long as store or index give no answer. Cancelling it loses nothing.

        Raises:
            IncompatibleStoreError: The store is not set up for replication; says what to do.
        """
        while True:
            async with self.leader.hold(f"{STEP} of {self.config.name}") as scope:
                with scope:
                    return await self._go_on()

    async def _go_on(self) -> BackfillProgress:
        progress = await self._insist(self.scan.find_progress)
        if progress is None or progress.ended_at is not None:
            progress = await self._insist(self.scan.begin)
        total = await self._insist(self.scan.estimate)
        self._tell(progress, total)
        while (chunk := await self._read(progress)).last is not None:
            await self._write(chunk)
            found = len(chunk.rows) + len(chunk.unreadable)
            progress = attrs.evolve(progress, after=chunk.last, done=progress.done + found)
            await self._save(progress)
            self._tell(progress, total)
        ended = progress
        return await self._insist(lambda: self.scan.end(ended))

    async def _read(self, progress: BackfillProgress) -> ScanChunk:
        return await self._insist(lambda: self.scan.read(progress.after, self.chunk_size))

    async def _write(self, chunk: ScanChunk) -> None:
        changes = [Change(ChangeKind.INSERT, row) for row in chunk.rows]
        letters = [letter_of_unreadable(found) for found in chunk.unreadable]
        await self.delivery.deliver(changes, letters, since=self.clock.now())

    async def _save(self, progress: BackfillProgress) -> None:
        await self._insist(lambda: self.scan.save(progress))

    def _tell(self, progress: BackfillProgress, total: int) -> None:
        self.observer(BackfillAdvanced(done=progress.done, total=max(total, progress.done)))

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer."""
        backoff = Backoff(base=self.config.resubscribe_base_delay, cap=self.config.resubscribe_max_delay)
        for failures in count(1):
            try:
                return await ask()
            except StoreUnavailableError as error:
                self.observer(SystemFailed(step=STEP, error=reason_of(error)))
            await anyio.sleep(backoff.pause(failures).total_seconds())
        raise AssertionError
