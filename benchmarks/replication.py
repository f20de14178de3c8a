"""What replication costs: Postgres and ClickHouse as processes of their own, and a replicator between them.

Run it with ``make bench-replication``; ``ARGS=--short`` takes a fraction of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import anyio
import attrs

from harness.replication import Stage, open_stage
from harness.services import RUN, CannotStartError
from sessions_adapters.postgres import PostgresConfig
from sessions_adapters.postgres.replication import PostgresChangeFeed
from sessions_adapters.profiles import Replication, open_replication
from sessions_core.domain.events import ChangesRead, Event, RowsFlushed
from sessions_core.ports.observer import Observer
from sessions_core.services.replication.config import ReplicatorConfig

MISSING: Final = 2
TRANSACTION: Final = 10
RATE_AIM: Final = 10_000
RATIO_AIM: Final = 0.30
LAG_AIM: Final = 0.5
OFFERED: Final = 1000
SLOT: Final = "sessions_to_clickhouse_v1"
INSERT: Final = """
    insert into session (
        id, environment_id, organization_id, project_id, environment_type, type, task_identifier, trigger_config, tags,
        metadata, current_run_version, epoch, is_test, created_at, updated_at
    )
    select 'session_' || n, 'env', 'org', 'proj', 'DEVELOPMENT', 'chat', 'echo', '{"basePayload":{}}', array['a'],
        json_build_object('n', n, 'name', 'somebody'), 0, 0, false, now(), now()
    from generate_series($1::int, $2::int) as n
"""
DROP_SLOT: Final = "select pg_drop_replication_slot($1)"
SIZE: Final = "VmRSS:"


@attrs.define(eq=False)
class Tally(Observer):
    """Counts what is told.

    Attributes:
        lags: For each batch how old its oldest change was when it was written, and how many rows it had.
    """

    rows: int = 0
    changes: int = 0
    lags: list[tuple[float, int]] = attrs.field(factory=list)

    def __call__(self, event: Event) -> None:
        if isinstance(event, RowsFlushed):
            self.rows += event.rows
            self.lags.append((event.lag.total_seconds(), event.rows))
        elif isinstance(event, ChangesRead):
            self.changes += sum(event.kinds.values())

    def lag(self, share: float) -> float:
        """Return the lag that this share of the rows did not exceed. A row counts with the age of its batch's oldest."""
        wanted, seen = math.ceil(share * self.rows), 0
        for lag, rows in sorted(self.lags):
            seen += rows
            if seen >= wanted:
                return lag
        return math.inf


@attrs.frozen
class Rate:
    """Changes per second.

    Attributes:
        by_clock: As one sees it.
        by_processor: Per second of processor time of this process, which replicates: other work on the machine does not matter.
    """

    by_clock: float
    by_processor: float


@attrs.frozen
class Meter:
    """Measures from when it is made."""

    _clock: float = attrs.field(init=False, factory=time.perf_counter)
    _processor: float = attrs.field(init=False, factory=time.process_time)

    def rate(self, changes: int) -> Rate:
        """Return how fast so many changes went by."""
        clock, processor = time.perf_counter() - self._clock, time.process_time() - self._processor
        return Rate(changes / clock, changes / processor)


@attrs.define(eq=False)
class Bench:
    """Measures on one stage."""

    stage: Stage
    changes: int
    seconds: int
    many: int
    _next: int = attrs.field(init=False, default=1)

    async def run(self) -> list[tuple[str, str, str]]:
        """Return lines: what was measured, the figure, the aim."""
        return [*await self._drain(), await self._live(), await self._memory()]

    async def _drain(self) -> list[tuple[str, str, str]]:
        async with self._opened(interval=0.1) as (replication, _):
            await self._streamed(replication)
        await self._insert(self.changes)
        nothing, into = await self._into_nothing(), await self._into_index()
        share = into.by_clock / nothing.by_clock
        return [
            ("drain the slot into nothing", f"{nothing.by_clock:,.0f} changes/s", ""),
            (
                "drain the slot into ClickHouse",
                f"{into.by_clock:,.0f} changes/s",
                _aim(into.by_clock >= RATE_AIM, f">= {RATE_AIM:,}"),
            ),
            ("that is, of the former", f"{share:.0%}", _aim(share >= RATIO_AIM, f">= {RATIO_AIM:.0%}")),
            ("per second of processor time, into nothing", f"{nothing.by_processor:,.0f} changes", ""),
            ("the same, into ClickHouse", f"{into.by_processor:,.0f} changes", ""),
        ]

    async def _into_nothing(self) -> Rate:
        feed = PostgresChangeFeed(PostgresConfig(url=self.stage.postgres.url))
        meter, seen = Meter(), 0
        async with feed.open() as stream:
            async for batch in stream:
                seen += len(batch.changes)
                if seen >= self.changes:
                    break
        return meter.rate(self.changes)

    async def _into_index(self) -> Rate:
        async with self._opened(interval=0.1) as (replication, tally):
            meter = Meter()
            async with replication.running():
                while tally.rows < self.changes:
                    await anyio.sleep(0.005)
                rate = meter.rate(self.changes)
        return rate

    async def _live(self) -> tuple[str, str, str]:
        """Commit a thousand changes a second, one by one, and see when they are in the index."""
        async with self._opened(interval=0.1) as (replication, tally), replication.running():
            await self._streaming(replication)
            await self._offer()
            while tally.rows < OFFERED * self.seconds:
                await anyio.sleep(0.01)
        lag = tally.lag(0.99)
        name = f"commit to queryable, p99, at {OFFERED:,} changes/s for {self.seconds} s"
        return (name, f"{lag * 1000:,.0f} ms", _aim(lag <= LAG_AIM, f"<= {LAG_AIM * 1000:,.0f} ms"))

    async def _offer(self) -> None:
        began, offered = time.perf_counter(), 0
        async with self.stage.connection() as connection:
            while offered < OFFERED * self.seconds:
                due = int((time.perf_counter() - began) * OFFERED)
                while offered < min(due, OFFERED * self.seconds):
                    await connection.execute(INSERT, self._next, self._next)
                    self._next, offered = self._next + 1, offered + 1
                await anyio.sleep(0.001)

    async def _memory(self) -> tuple[str, str, str]:
        """Replicate in a process of its own, and look at its size on the way."""
        sizes: list[float] = []
        process = await anyio.to_thread.run_sync(
            self.stage.replicate(SESSION_REPLICATION_FLUSH_INTERVAL_MS="100").start
        )
        try:
            step = max(self.many // 10, TRANSACTION)
            for _ in range(10):
                await self._insert(step)
                await self._acknowledged()
                sizes.append(_size_of(process.pid))
        finally:
            await anyio.to_thread.run_sync(process.stop)
        grown = sizes[-1] / sizes[1] - 1
        name = f"memory of the replicator over {10 * step:,} changes"
        return (name, f"{sizes[1]:.0f} to {sizes[-1]:.0f} MiB ({grown:+.0%})", _aim(grown <= 0.1, "flat"))

    async def _insert(self, count: int) -> None:
        async with self.stage.connection() as connection:
            for first in range(self._next, self._next + count, TRANSACTION):
                await connection.execute(INSERT, first, first + TRANSACTION - 1)
        self._next += count

    async def _acknowledged(self) -> None:
        """Wait until everything that is committed now is acknowledged."""
        async with self.stage.connection() as connection:
            end = await connection.fetchval("select pg_current_wal_lsn()::text")
            reached = "select confirmed_flush_lsn >= $2::text::pg_lsn from pg_replication_slots where slot_name = $1"
            while not await connection.fetchval(reached, SLOT, end):
                await anyio.sleep(0.05)

    async def _streamed(self, replication: Replication) -> None:
        async with replication.running():
            await self._streaming(replication)

    async def _streaming(self, replication: Replication) -> None:
        while not replication.replicator.health.is_streaming:
            await anyio.sleep(0.01)

    @asynccontextmanager
    async def _opened(self, interval: float) -> AsyncIterator[tuple[Replication, Tally]]:
        tally, config = Tally(), ReplicatorConfig(flush_interval=timedelta(seconds=interval))
        async with open_replication(self.stage.settings(replicator=config), tally) as replication:
            yield replication, tally


def _size_of(pid: int) -> float:
    """Return the memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(SIZE):
            return int(line.split()[1]) / 1024
    return math.nan


def _aim(is_met: bool, text: str) -> str:
    return f"{text}: {'met' if is_met else 'MISSED'}"


def _show(lines: Sequence[tuple[str, str, str]]) -> None:
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    for name, figure, aim in lines:
        print(f"{name:<{widths[0]}}  {figure:>{widths[1]}}  {aim}".rstrip())


def main() -> int:
    """Measure, and print ratios with their aims; return 0, or 2 if a system cannot be started. A missed aim changes nothing."""
    parser = argparse.ArgumentParser(description="What replication from Postgres to ClickHouse costs.")
    parser.add_argument("--short", action="store_true", help="a fraction of the changes")
    short = parser.parse_args().short
    try:
        with RUN, tempfile.TemporaryDirectory(prefix="bench-") as folder, open_stage(Path(folder)) as stage:
            changes, seconds, many = (20_000, 5, 50_000) if short else (200_000, 30, 1_000_000)
            _show(asyncio.run(Bench(stage, changes, seconds, many).run()))
    except CannotStartError as error:
        print(error, file=sys.stderr)
        return MISSING
    return 0


if __name__ == "__main__":
    sys.exit(main())
