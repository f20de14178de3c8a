"""Replication from the Postgres store to the index in ClickHouse: what is opened for it, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs

from sessions_core.errors import IndexUnavailableError
from sessions_core.ports.observer import Observer
from sessions_core.services.replication.backfill import Backfill
from sessions_core.services.replication.config import ReplicatorConfig
from sessions_core.services.replication.delivery import Delivery
from sessions_core.services.replication.feed_watch import FeedWatch
from sessions_core.services.replication.replicator import Replicator
from sessions_core.unwrapping import unwrapped

if TYPE_CHECKING:
    from sessions_adapters.clickhouse import ClickHouseConfig
    from sessions_adapters.postgres import PostgresConfig, PostgresDatabase
    from sessions_adapters.postgres.replication import ReplicationConfig

CONNECTIONS: Final = 2
"""Of the pool: who writes dead letters or reads sessions, and who measures."""
RETAINED_BYTES: Final = 1 << 30


@attrs.frozen(kw_only=True)
class ReplicationSettings:
    """From where to where, and how.

    Attributes:
        database_url: The Postgres store, directly: poolers do not carry replication.
        clickhouse_url: Where the index is.
        slot: The replication slot.
        publication: What it streams.
        replicator: How the replicator behaves. Its name is that of the slot, whatever this says.
        leader_check: So often a leader makes sure that it still leads, and others try to.
        insert_async: Let ClickHouse gather what several processes write. It is waited for all the same.
        keep_alive: How long an unused connection to ClickHouse stays open; None: for as long as ClickHouse likes.
        workers: How many connections to ClickHouse are open at most.
        retained_bytes: A warning is told when the store has to keep more of its log than this.
    """

    database_url: str = attrs.field(repr=False)
    clickhouse_url: str = attrs.field(repr=False)
    slot: str = "sessions_to_clickhouse_v1"
    publication: str = "sessions_to_clickhouse_v1_publication"
    replicator: ReplicatorConfig = attrs.field(factory=ReplicatorConfig)
    leader_check: timedelta = timedelta(milliseconds=500)
    insert_async: bool = False
    keep_alive: timedelta | None = timedelta()
    workers: int = 10
    retained_bytes: int = RETAINED_BYTES

    def postgres(self) -> PostgresConfig:
        """Say where sessions come from."""
        from sessions_adapters import postgres

        # Pages are read elsewhere: the part of the schema for them need not be there.
        return postgres.PostgresConfig(
            url=self.database_url, lists=False, connections=CONNECTIONS, leader_check=self.leader_check
        )

    def feed(self) -> ReplicationConfig:
        """Say which slot and publication.

        Raises:
            InvalidError: That is no name.
        """
        from sessions_adapters.postgres import replication

        return replication.ReplicationConfig(slot=self.slot, publication=self.publication)

    def clickhouse(self) -> ClickHouseConfig:
        """Say where sessions go to.

        Raises:
            InvalidError: The URL is of no known kind.
        """
        from sessions_adapters import clickhouse

        return clickhouse.ClickHouseConfig(url=self.clickhouse_url, workers=self.workers, keep_alive=self.keep_alive)


@attrs.frozen(kw_only=True)
class Replication:
    """What replicates. Nothing of it runs by itself."""

    replicator: Replicator
    backfill: Backfill
    watch: FeedWatch

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Replicate, and measure, inside the block; what has been read is written at its end."""
        with unwrapped():
            async with self.replicator.running(), anyio.create_task_group() as tasks:
                tasks.start_soon(self.watch.run)
                yield
                tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_replication(settings: ReplicationSettings, observer: Observer) -> AsyncIterator[Replication]:
    """Open what replication needs for the time of the block.

    ClickHouse may be down; what should be there then is waited for.

    Raises:
        InvalidError: A setting is wrong.
        IncompatibleStoreError: One of the systems needs ``sessions migrate``, or is newer than this software.
        StoreUnavailableError: Postgres gives no answer.
        ImportError: An extra is missing; names it.
    """
    from sessions_adapters import clickhouse, postgres

    feed = settings.feed()
    async with (
        postgres.open_database(settings.postgres()) as db,
        clickhouse.open_database(settings.clickhouse()) as index,
    ):
        with suppress(IndexUnavailableError):  # rows are kept for it meanwhile, by Postgres
            await clickhouse.check_schema(index)
        writer = clickhouse.ClickHouseIndexWriter(index, is_gathered=settings.insert_async)
        yield _build(settings, db, feed, writer, observer)


def _build(
    settings: ReplicationSettings, db: PostgresDatabase, feed: ReplicationConfig, writer: Any, observer: Observer
) -> Replication:
    from sessions_adapters.postgres import PostgresDeadLetters, PostgresLeaderLock
    from sessions_adapters.postgres.replication import PostgresChangeFeed, PostgresFeedGauge, PostgresSessionScan

    config = attrs.evolve(settings.replicator, name=f"replication:{settings.slot}")
    shared: dict[str, Any] = {"clock": db.clock, "observer": observer, "config": config}
    letters, leader = PostgresDeadLetters(db), PostgresLeaderLock(db)
    delivery = Delivery(writer=writer, dead_letters=letters, **shared)
    return Replication(
        replicator=Replicator(
            feed=PostgresChangeFeed(db.config, feed), writer=writer, dead_letters=letters, leader=leader, **shared
        ),
        backfill=Backfill(scan=PostgresSessionScan(db, feed), delivery=delivery, leader=leader, **shared),
        watch=FeedWatch(
            gauge=PostgresFeedGauge(db, feed),
            dead_letters=letters,
            observer=observer,
            limit_bytes=settings.retained_bytes,
        ),
    )
