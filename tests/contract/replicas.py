"""A store and an index that is fed from it, as replication would: for indexes that do not read the store's own rows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import count

import attrs

from sessions_core.domain.claim import Claim
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import EnvironmentId, RunId, SessionId
from sessions_core.domain.pagination import IndexEntry, PageRequest, SessionFilter
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Creation, Session, SessionRun, SessionUpdate
from sessions_core.ports.session_index import IndexRow, IndexWriter, SessionIndex
from sessions_core.ports.session_store import SessionStore


@attrs.define
class Feed:
    """What has changed in the store and is not in the index yet, oldest first."""

    writer: IndexWriter
    rows: list[IndexRow] = attrs.field(factory=list)
    versions: Callable[[], int] = attrs.field(factory=lambda: count(1).__next__)

    def add(self, session: Session) -> Session:
        """Note the session as it is now."""
        self.rows.append(IndexRow(session, self.versions()))
        return session

    async def catch_up(self) -> None:
        """Write what has changed, in one batch."""
        rows, self.rows = self.rows, []
        await self.writer.write(rows)


@attrs.define
class FeedingStore(SessionStore):
    """Does what *inner* does and tells the feed about every change."""

    inner: SessionStore
    feed: Feed

    async def create(self, session: Session, run: RunRecord) -> Creation:
        creation = await self.inner.create(session, run)
        self.feed.add(creation.session)
        return creation

    async def update(self, environment_id: EnvironmentId, session_id: SessionId, change: SessionUpdate) -> Session:
        return self.feed.add(await self.inner.update(environment_id, session_id, change))

    async def close(
        self,
        environment_id: EnvironmentId,
        session_id: SessionId,
        reason: str | None,
        *,
        expected_run: RunId | None = None,
        expected_epoch: int | None = None,
    ) -> Session:
        return self.feed.add(
            await self.inner.close(
                environment_id, session_id, reason, expected_run=expected_run, expected_epoch=expected_epoch
            )
        )

    async def find(self, environment_id: EnvironmentId, name: str) -> Session | None:
        return await self.inner.find(environment_id, name)

    async def find_many(self, environment_id: EnvironmentId, ids: Collection[SessionId]) -> list[Session]:
        return await self.inner.find_many(environment_id, ids)

    async def mark_sealed(self, session_id: SessionId) -> None:
        await self.inner.mark_sealed(session_id)

    async def claim_run(
        self,
        run: RunRecord,
        *,
        expected_version: int,
        expected_run: RunId | None = None,
        expected_epoch: int | None = None,
    ) -> Claim:
        return await self.inner.claim_run(
            run, expected_version=expected_version, expected_run=expected_run, expected_epoch=expected_epoch
        )

    async def list_runs(self, environment_id: EnvironmentId, session_id: SessionId, limit: int) -> list[SessionRun]:
        return await self.inner.list_runs(environment_id, session_id, limit)

    async def check(self) -> None:
        await self.inner.check()


@attrs.define
class CaughtUpIndex(SessionIndex):
    """Asks *inner* once everything that has changed is in it."""

    inner: SessionIndex
    feed: Feed

    async def select(self, environment: Environment, wanted: SessionFilter, request: PageRequest) -> list[IndexEntry]:
        await self.feed.catch_up()
        return await self.inner.select(environment, wanted, request)

    async def count(self, environment: Environment, wanted: SessionFilter) -> int:
        await self.feed.catch_up()
        return await self.inner.count(environment, wanted)

    async def list_tags(self, environment: Environment, *, containing: str = "", limit: int = 100) -> list[str]:
        await self.feed.catch_up()
        return await self.inner.list_tags(environment, containing=containing, limit=limit)
