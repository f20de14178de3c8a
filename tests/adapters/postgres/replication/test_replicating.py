"""The replicator over the real change feed, with an index in memory that may be away."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import asyncpg
import attrs
import pytest

from harness.feeding import insert
from harness.postgres import PostgresProcess
from sessions_adapters.memory import InMemoryDeadLetters, InMemoryLeaderLock
from sessions_adapters.postgres import PostgresConfig, migrate
from sessions_adapters.postgres.replication import PostgresChangeFeed, ReplicationConfig
from sessions_adapters.system import SystemClock
from sessions_core.domain.events import ChangesRead, Event, ReplicationStreamClosed
from sessions_core.errors import IndexUnavailableError
from sessions_core.ports.session_index import IndexRow, IndexWriter
from sessions_core.services.replication.config import ReplicatorConfig
from sessions_core.services.replication.replicator import Replicator

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

pytestmark = [pytest.mark.needs_postgres, pytest.mark.slow]

PATIENCE_SECONDS = 30
STOPPING_SECONDS = 15
ROUNDS = 3


@attrs.define(eq=False)
class Index(IndexWriter):
    """Keeps the largest version of each session, while it is not away."""

    rows: dict[str, IndexRow] = attrs.field(factory=dict)
    is_away: bool = False

    async def write(self, rows: Sequence[IndexRow]) -> None:
        await anyio.sleep(0.001)
        if self.is_away:
            raise IndexUnavailableError
        for row in rows:
            kept = self.rows.get(row.session.id)
            if kept is None or row.version >= kept.version:
                self.rows[row.session.id] = row

    @property
    def shown(self) -> dict[str, tuple[str, ...]]:
        return {name: row.session.tags for name, row in self.rows.items() if not row.is_deleted}


@attrs.define(eq=False)
class Side:
    """A replicator, what it writes to, and what it has told."""

    feed: PostgresChangeFeed
    index: Index = attrs.field(factory=Index)
    told: list[Event] = attrs.field(factory=list)

    @asynccontextmanager
    async def replicating(self, **config: Any) -> AsyncIterator[None]:
        """Replicate inside the block, from its beginning on."""
        replicator = self._replicator(**config)
        async with replicator.running():
            with anyio.fail_after(PATIENCE_SECONDS):
                while not replicator.health.is_streaming:
                    await anyio.sleep(0.005)
            yield

    def _replicator(self, **config: Any) -> Replicator:
        fast = {
            "flush_interval": timedelta(milliseconds=20),
            "insert_base_delay": timedelta(milliseconds=10),
            "insert_max_delay": timedelta(milliseconds=50),
            "resubscribe_base_delay": timedelta(milliseconds=20),
            "resubscribe_max_delay": timedelta(milliseconds=100),
        }
        return Replicator(
            feed=self.feed,
            writer=self.index,
            dead_letters=InMemoryDeadLetters(),
            leader=InMemoryLeaderLock(),
            clock=SystemClock(),
            observer=self._note,
            config=ReplicatorConfig(**(fast | config)),
        )

    def _note(self, event: Event) -> None:
        self.told.append(event)

    def count_read(self) -> int:
        return sum(sum(event.kinds.values()) for event in self.told if isinstance(event, ChangesRead))

    async def until_shown(self, wanted: dict[str, tuple[str, ...]]) -> None:
        with anyio.fail_after(PATIENCE_SECONDS):
            while self.index.shown != wanted:
                await anyio.sleep(0.01)


async def stored(connection: Connection) -> dict[str, tuple[str, ...]]:
    rows = await connection.fetch("select id, tags from sessions.session")
    return {row["id"]: tuple(row["tags"]) for row in rows}


async def test_what_changes_is_in_the_index_and_a_clean_stop_repeats_nothing(
    feed: PostgresChangeFeed, admin: Connection
) -> None:
    side = Side(feed)
    async with side.replicating():
        for first in (1, 101, 201):
            await insert(admin, first, first + 99)
            await admin.execute("update session set tags = array[id, 'new'] where id like '%7'")
        await admin.execute("delete from session where id like '%3'")
        await side.until_shown(await stored(admin))
        await insert(admin, 301)  # perhaps it is not read any more
    read = side.count_read()
    async with side.replicating():
        await insert(admin, 302)
        await side.until_shown(await stored(admin))
    assert side.count_read() - read <= 2


async def test_a_stop_in_the_middle_of_a_transaction_loses_nothing(feed: PostgresChangeFeed, admin: Connection) -> None:
    side = Side(feed)
    async with side.replicating():
        await insert(admin, 1)
        await side.until_shown(await stored(admin))
        transaction = admin.transaction()
        await transaction.start()
        await insert(admin, 2, 500)
    await insert(admin, 501, 600)
    await transaction.commit()
    async with side.replicating():
        await side.until_shown(await stored(admin))


async def test_a_server_stops_although_nothing_can_be_written_and_no_more_be_held(server: PostgresProcess) -> None:
    config = PostgresConfig(url=server.url)
    await migrate(config)
    side = Side(PostgresChangeFeed(config, ReplicationConfig(batch_size=10)))
    async with side.replicating(held_rows=20, stall=timedelta(seconds=2)):
        admin = await asyncpg.connect(server.url)
        await insert(admin, 1)
        await side.until_shown(await stored(admin))
        side.index.is_away = True
        for number in range(2, 102):
            await insert(admin, number)
        wanted = await stored(admin)
        await admin.close()
        began = time.monotonic()
        await anyio.to_thread.run_sync(server.stop)
        assert time.monotonic() - began < STOPPING_SECONDS
        assert any(isinstance(event, ReplicationStreamClosed) for event in side.told)
        side.index.is_away = False
        await anyio.to_thread.run_sync(server.start)
        await side.until_shown(wanted)


@pytest.mark.kill
async def test_a_server_that_is_killed_under_load_costs_nothing(server: PostgresProcess) -> None:
    config, rng = PostgresConfig(url=server.url), random.Random(0)
    await migrate(config)
    side = Side(PostgresChangeFeed(config, ReplicationConfig(status_interval=timedelta(milliseconds=20))))
    async with side.replicating(held_rows=50, flush_concurrency=2):
        for round_ in range(ROUNDS):
            admin = await asyncpg.connect(server.url)
            for number in range(round_ * 100, round_ * 100 + rng.randrange(20, 80)):
                await insert(admin, number)
                await admin.execute(
                    "update sessions.session set tags = tags || 'x'::text where id = $1", f"session_{number}"
                )
            server.kill()
            admin.terminate()
            await anyio.to_thread.run_sync(server.start)
        admin = await asyncpg.connect(server.url)
        wanted = await stored(admin)
        await admin.close()
        await side.until_shown(wanted)
