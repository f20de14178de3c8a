"""Postgres, ClickHouse and a process that replicates from one to the other: each may be killed, and all can be compared.

By hand: ``PYTHONPATH=tests python -m harness.replication --rounds 20 --rows 1000000``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
import asyncpg
import attrs

from harness.clickhouse import ClickHouseServer
from harness.postgres import PostgresProcess
from harness.server import ServerProcess
from harness.services import RUN
from sessions_adapters.clickhouse import ClickHouseConfig, ClickHouseDatabase, open_database
from sessions_adapters.profiles import POSTGRES, Backends, Replication, ReplicationSettings, migrate, open_replication
from sessions_core.domain.events import Event
from sessions_core.errors import IndexUnavailableError
from sessions_core.ports.observer import Observer
from sessions_core.services.replication.config import ReplicatorConfig

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Rows = dict[str, tuple[Any, ...]]
Ids = tuple[str, str]

FLUSH_MS: Final = 50
SETTLING_SECONDS: Final = 30
"""On a machine with other work it may take so long for each round to write what gathered in it."""
ALL: Final = ("", "~")
SLICES: Final = ("", *(f"session_{number}" for number in range(10, 100)), "~")
"""Few enough sessions lie between two of these to be held in memory, however many there are."""
STORED: Final = """
    select id, environment_id, organization_id, project_id, environment_type, coalesce(external_id, ''), type, task_identifier,
        tags, metadata, closed_at, coalesce(closed_reason, ''), expires_at, created_at, updated_at, is_test
    from sessions.session where id >= $1 and id < $2
"""
INDEXED: Final = """
    SELECT session_id, environment_id, organization_id, project_id, environment_type, external_id, type, task_identifier,
        tags, toString(metadata), toUnixTimestamp64Milli(closed_at), closed_reason, toUnixTimestamp64Milli(expires_at),
        toUnixTimestamp64Milli(created_at), toUnixTimestamp64Milli(updated_at), is_test, friendly_id = session_id
    FROM sessions_v1 FINAL WHERE session_id >= {first:String} AND session_id < {last:String}
"""
INSERT: Final = """
    insert into session (
        id, environment_id, organization_id, project_id, environment_type, external_id, type, task_identifier, trigger_config,
        tags, metadata, current_run_version, epoch, is_test, expires_at, created_at, updated_at
    )
    select 'session_' || n, 'env', 'org', 'proj', 'DEVELOPMENT', nullif('x' || n, 'x' || (n / 2 * 2)), 'chat', 'echo',
        '{"basePayload":{}}', array['a', 'n' || n % 7],
        json_build_object('n', n, 'mixed', json_build_array(n, 'x', true, json_build_object('deep', n))), 0, 0, n % 5 = 0,
        case when n % 3 = 0 then timestamptz '2030-01-01' end, timestamptz '2026-01-01' + n * interval '1 minute', now()
    from generate_series($1::int, $2::int) as n
"""
UPDATE: Final = """
    update session set tags = (tags || $2::text)[cardinality(tags) - 8:], metadata = $3::text::json, updated_at = now()
    where id = $1
"""
"""A session has ten tags at most: the newest ones stay."""
CLOSE: Final = "update session set closed_at = now(), closed_reason = $2, updated_at = now() where id = $1"
DELETE: Final = "delete from session where id = $1"
LETTERS: Final = "select session_id, reason from dead_letter order by number"
STREAMS: Final = "select count(*) from pg_stat_replication"
HAS_BEGUN: Final = "select exists (select from pg_replication_slots join pg_stat_replication on pid = active_pid)"
"""A slot is active while it is made, too, and a stream is there before it has a slot."""
LOST: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@attrs.frozen
class Notes(Observer):
    """Keeps what it is told."""

    events: list[Event] = attrs.field(factory=list)

    def __call__(self, event: Event) -> None:
        """Keep *event*."""
        self.events.append(event)


@attrs.define(eq=False)
class ReplicateProcess(ServerProcess):
    """``sessions replicate`` in a process of its own."""

    def command(self) -> list[str]:
        """Return the command that starts it."""
        return [sys.executable, "-m", "sessions_server", "replicate", "--port", "0"]


@attrs.define(eq=False)
class Stage:
    """The systems of one test."""

    folder: Path
    postgres: PostgresProcess
    sink: ClickHouseServer
    flush_ms: int = FLUSH_MS

    @property
    def backends(self) -> Backends:
        """What the processes are told."""
        return Backends(
            profile=POSTGRES, data=self.folder, database_url=self.postgres.url, clickhouse_url=self.sink.url
        )

    def settings(self, **members: Any) -> ReplicationSettings:
        """Return how to replicate in this process."""
        config = ReplicatorConfig(
            flush_interval=timedelta(milliseconds=self.flush_ms),
            insert_max_delay=timedelta(milliseconds=200),
            resubscribe_base_delay=timedelta(milliseconds=50),
            resubscribe_max_delay=timedelta(milliseconds=500),
        )
        check = timedelta(milliseconds=50)
        given: dict[str, Any] = {"replicator": config, "leader_check": check, "keep_alive": None} | members
        return ReplicationSettings(database_url=self.postgres.url, clickhouse_url=self.sink.url, **given)

    @asynccontextmanager
    async def replicating(self, events: list[Event] | None = None, **members: Any) -> AsyncIterator[Replication]:
        """Replicate in this process inside the block, from when changes are streamed."""
        observer = Notes([] if events is None else events)
        async with open_replication(self.settings(**members), observer) as replication, replication.running():
            with anyio.fail_after(60):
                while not replication.replicator.health.is_streaming:
                    await anyio.sleep(0.01)
            yield replication

    def replicate(self, **variables: str) -> ReplicateProcess:
        """Return a process that replicates; start it, or use it as a context."""
        return ReplicateProcess(self.folder, environment=self.variables() | variables)

    def variables(self) -> dict[str, str]:
        """Return what the command is told by its environment."""
        return {
            "SESSIONS_PROFILE": POSTGRES,
            "SESSIONS_DATABASE_URL": self.postgres.url,
            "SESSIONS_CLICKHOUSE_URL": self.sink.url,
            "SESSIONS_LOG_JSON": "1",
            "SESSION_REPLICATION_FLUSH_INTERVAL_MS": str(self.flush_ms),
            "SESSION_REPLICATION_INSERT_MAX_DELAY_MS": "200",
            "SESSION_REPLICATION_LEADER_LOCK_RETRY_INTERVAL_MS": "100",
            "SESSION_REPLICATION_KEEP_ALIVE_ENABLED": "1",
        }

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Give a connection to the store, on our schema."""
        connection = await asyncpg.connect(self.postgres.url, server_settings={"search_path": "sessions"})
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def index(self) -> AsyncIterator[ClickHouseDatabase]:
        """Give the index, to be looked at from outside."""
        config = ClickHouseConfig(url=self.sink.url, workers=1, timeout=timedelta(seconds=30))
        async with open_database(config) as database:
            yield database

    async def stored(self, ids: Ids = ALL) -> Rows:
        """Return sessions as they are in the store, those with ids from the first one up to the second."""
        async with self.connection() as connection:
            return {row[0]: _as_indexed(tuple(row)) for row in await connection.fetch(STORED, *ids)}

    async def indexed(self, ids: Ids = ALL) -> Rows:
        """Return the same as the index has them."""
        async with self.index() as database:
            found = await database.query(INDEXED, dict(zip(("first", "last"), ids, strict=True)))
            return {row[0]: _whole(row) for row in found}

    async def until_streaming(self, patience: float = 60) -> None:
        """Wait until somebody streams: what is committed from here on comes by itself, and what was before needs a backfill.

        Raises:
            TimeoutError: Nobody does.
        """
        async with self.connection() as connection:
            with anyio.fail_after(patience):
                while not await connection.fetchval(HAS_BEGUN):
                    await anyio.sleep(0.01)

    async def letters(self) -> list[tuple[str, str]]:
        """Return the sessions that dead letters are about, and what is wrong with them."""
        async with self.connection() as connection:
            return [tuple(row) for row in await connection.fetch(LETTERS)]

    async def settle(self, patience: float = 60, ids: Ids = ALL) -> Rows:
        """Wait until the index has exactly what the store has; return that.

        Raises:
            AssertionError: It never did; names what is missing, stale or too much.
        """
        deadline = anyio.current_time() + patience
        while True:
            stored, indexed = await self.stored(ids), await self._indexed_or_nothing(ids)
            if stored == indexed:
                return stored
            if anyio.current_time() > deadline:
                raise AssertionError(difference(stored, indexed))
            await anyio.sleep(0.05)

    async def _indexed_or_nothing(self, ids: Ids) -> Rows:
        with suppress(IndexUnavailableError):
            return await self.indexed(ids)
        return {}


def difference(stored: Rows, indexed: Rows) -> str:
    """Say how the index differs from the store."""
    missing = sorted(stored.keys() - indexed.keys())
    too_much = sorted(indexed.keys() - stored.keys())
    stale = sorted(name for name in stored.keys() & indexed.keys() if stored[name] != indexed[name])
    example = f"; {stored[stale[0]]} is {indexed[stale[0]]}" if stale else ""
    counts = f"{len(missing)} missing, {len(stale)} stale, {len(too_much)} resurrected of {len(stored)}"
    return f"{counts}: {missing[:3]} {stale[:3]} {too_much[:3]}{example}"


def _as_indexed(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row of the store in the form of one of the index, which keeps no nulls in metadata."""
    *before, tags, metadata, closed, reason, expires, created, updated, is_test = row
    data = {} if metadata is None else {"data": json.loads(metadata)}
    times = (_ms(closed), reason, _ms(expires), _ms(created), _ms(updated))
    return (*before, list(tags), data, *times, int(is_test), 1)


def _whole(row: tuple[Any, ...]) -> tuple[Any, ...]:
    values = list(row)
    values[9] = json.loads(values[9])
    return tuple(values)


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


@contextmanager
def open_stage(folder: Path) -> Iterator[Stage]:
    """Start Postgres and ClickHouse with our tables, and nothing that replicates."""
    with (
        tempfile.TemporaryDirectory(prefix="sessions-pg-") as place,
        PostgresProcess(Path(place)) as postgres,
        ClickHouseServer(folder) as sink,
    ):
        stage = Stage(folder, postgres, sink)
        asyncio.run(migrate(stage.backends))
        yield stage


@attrs.define(eq=False)
class Load:
    """Writers that insert, update, close and delete sessions of their own, and connect again when they have to.

    Attributes:
        commits: How many transactions have been acknowledged.
        pause: Between two transactions of a writer.
    """

    stage: Stage
    writers: int = 4
    pause: float = 0.002
    commits: int = attrs.field(init=False, default=0)
    _stop: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _chance: random.Random = attrs.field(init=False, factory=lambda: random.Random(7))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write inside the block."""
        async with anyio.create_task_group() as tasks:
            for writer in range(self.writers):
                tasks.start_soon(self._write, 1_000_000 * (writer + 1))
            yield
            self._stop.set()

    async def _write(self, number: int) -> None:
        alive: list[str] = []
        while not self._stop.is_set():
            try:
                async with self.stage.connection() as connection:
                    while not self._stop.is_set():
                        number += 3
                        await self._transact(connection, number, alive)
                        self.commits += 1
                        await anyio.sleep(self.pause)
            except LOST:
                await anyio.sleep(0.05)

    async def _transact(self, connection: Connection, number: int, alive: list[str]) -> None:
        """Change a few sessions at once. What a lost connection leaves unknown is left alone."""
        alive += [f"session_{number}", f"session_{number + 1}"]
        chosen = self._chance.choice(alive)
        async with connection.transaction():
            await connection.execute(INSERT, number, number + 1)
            await connection.execute(
                UPDATE, chosen, f"t{number}", json.dumps({"n": number, "list": [number, "y", [1.5]]})
            )
            if self._chance.random() < 0.2:
                await connection.execute(CLOSE, self._chance.choice(alive), f"done {number}")
            if self._chance.random() < 0.3:
                await connection.execute(DELETE, self._chance.choice(alive))


async def kill_rounds(stage: Stage, rounds: int, seed: int) -> list[str]:
    """Kill the replicator, Postgres or the sink at random moments under load, so often; return what was killed.

    Raises:
        AssertionError: The index differs from the store afterwards.
    """
    chance, killed = random.Random(seed), []
    with stage.replicate() as process:
        await stage.until_streaming()
        load = Load(stage)
        async with load.running():
            for _ in range(rounds):
                await anyio.sleep(chance.uniform(0.2, 1.0))
                killed.append(chance.choice(("replicator", "postgres", "sink")))
                await anyio.to_thread.run_sync(_kill_and_start, stage, process, killed[-1])
            await anyio.sleep(0.5)
        rows = await stage.settle(SETTLING_SECONDS * (1 + rounds))
        assert await stage.letters() == [], "nothing was written that nobody can read"
        assert process.stop() == 0, process.output[-10:]
    killed.append(f"{load.commits} commits, {len(rows)} sessions at the end")
    return killed


def _kill_and_start(stage: Stage, process: ReplicateProcess, name: str) -> None:
    victims: dict[str, ReplicateProcess | PostgresProcess | ClickHouseServer]
    victims = {"replicator": process, "postgres": stage.postgres, "sink": stage.sink}
    victim = victims[name]
    victim.kill()
    victim.start()


async def backfill_beside_writers(stage: Stage, rows: int) -> str:
    """Fill an empty index with so many sessions while others are changed; return what that was like.

    Raises:
        AssertionError: The index differs from the store afterwards.
    """
    async with stage.connection() as connection:
        for first in range(1, rows + 1, 10_000):
            await connection.execute(INSERT, first, min(first + 9_999, rows))
    async with stage.replicating() as replication:
        load, began = Load(stage), anyio.current_time()
        async with load.running():
            ended = await replication.backfill.run()
        took = anyio.current_time() - began
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        compared = [len(await stage.settle(ids=ids)) for ids in pairwise(SLICES)]
    counts = f"{ended.done} sessions in {took:.0f} s beside {load.commits} commits"
    return f"{counts}, {used} MiB at most; {sum(compared)} compared, all the same"


def main() -> None:
    """Do at length what the tests do briefly."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=0, help="kill replicator, Postgres or sink so often")
    parser.add_argument("--rows", type=int, default=0, help="backfill so many sessions beside writers")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with RUN, tempfile.TemporaryDirectory() as folder, open_stage(Path(folder)) as stage:
        if arguments.rounds:
            print(asyncio.run(kill_rounds(stage, arguments.rounds, arguments.seed)))
        if arguments.rows:
            print(asyncio.run(backfill_beside_writers(stage, arguments.rows)))


if __name__ == "__main__":
    main()
