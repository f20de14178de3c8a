"""Changes of sessions for tests of replication: made in the database, and read from a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
import attrs

from sessions_core.errors import UnavailableError
from sessions_core.ports.change_feed import Change, ChangeBatch, ChangeFeed, ChangeStream

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

INSERT: Final = """
    insert into sessions.session (
        id, environment_id, organization_id, project_id, environment_type, external_id, type, task_identifier, trigger_config,
        tags, metadata, current_run_version, epoch, is_test, created_at, updated_at
    )
    select 'session_' || n, 'env', 'org', 'proj', 'DEVELOPMENT', null, 'chat', 'echo', '{"basePayload":{}}',
        array['a', 'b'], json_build_object('n', n), 0, 0, false, '2026-01-01', '2026-01-01'
    from generate_series($1::int, $2::int) as n
"""
PATIENCE_SECONDS: Final = 10
IN_USE: Final = "select active from pg_replication_slots where slot_name = $1"


async def insert(connection: Connection, first: int, last: int | None = None) -> None:
    """Store sessions with the numbers from *first* to *last*, in one transaction."""
    await connection.execute(INSERT, first, first if last is None else last)


async def remove_feed(url: str, name: str) -> None:
    """Remove the slot and the publication *name*, if they were made, and what was altered for them. Nobody may stream."""
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        with anyio.fail_after(PATIENCE_SECONDS):
            while await connection.fetchval(IN_USE, name):
                await anyio.sleep(0.005)
        if await connection.fetchval(IN_USE, name) is not None:
            await connection.execute("select pg_drop_replication_slot($1)", name)
        await connection.execute(
            f"drop publication if exists {name}; alter table sessions.session replica identity default"
        )
    finally:
        await connection.close()


async def next_batch(stream: ChangeStream) -> ChangeBatch:
    """Return the next batch, which must come soon."""
    with anyio.fail_after(PATIENCE_SECONDS):
        return await anext(stream)


async def next_change(stream: ChangeStream) -> Change:
    """Return the only change of the next batch."""
    (change,) = (await next_batch(stream)).changes
    return change


async def take(stream: ChangeStream, count: int) -> list[ChangeBatch]:
    """Return the next batches, until they have *count* changes."""
    batches: list[ChangeBatch] = []
    while sum(len(batch.changes) for batch in batches) < count:
        batches.append(await next_batch(stream))
    return batches


def ids_of(batches: list[ChangeBatch]) -> list[str]:
    """Return the ids of the sessions that changed, in order."""
    return [change.row.session.id for batch in batches for change in batch.changes]


@attrs.define(eq=False)
class Sink:
    """Reads on and on, connects again when it has to, and acknowledges what it has kept."""

    feed: ChangeFeed
    versions: dict[str, int] = attrs.field(factory=dict)
    acknowledged: set[tuple[str, int]] = attrs.field(factory=set)
    again: list[tuple[str, int]] = attrs.field(factory=list)

    async def run(self) -> None:
        while True:
            try:
                async with self.feed.open() as stream:
                    async for batch in stream:
                        self._keep(batch)
                        stream.acknowledge(batch.position)
            except UnavailableError:
                await anyio.sleep(0.01)

    def _keep(self, batch: ChangeBatch) -> None:
        for change in batch.changes:
            key = (change.row.session.id, change.row.version)
            (self.again.append if key in self.acknowledged else self.acknowledged.add)(key)
            self.versions[key[0]] = max(self.versions.get(key[0], 0), key[1])
