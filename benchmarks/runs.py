"""What it costs to carry runs out on workers: one server, two workers, and Postgres, each a process of its own.

Run it with ``make bench-runs``; ``ARGS=--short`` takes a fraction of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
import attrs
import procrastinate

from harness.client import Client, Frame, delta_of
from harness.fleet import Fleet, start
from harness.postgres import with_database
from harness.server import KEY
from harness.services import CannotStartError
from harness.worker import WorkerProcess

MISSING: Final = 2
STALL: Final = 15.0
FIRST_OUTPUT_AIM: Final = 5.0
MEMORY_AIM: Final = 1024.0
TAKE_OVER_AIM: Final = STALL + 2
STOP_AIM: Final = 100.0
SIZE: Final = "VmRSS:"
IDLE: Final[dict[str, Any]] = {"triggerConfig": {"basePayload": {"idleTimeoutInSeconds": 1}}}
LIVE: Final[dict[str, Any]] = {"triggerConfig": {"basePayload": {"idleTimeoutInSeconds": 3600}}}
STOCK_WORKER: Final = """
import asyncio, sys, time, procrastinate
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=sys.argv[1]))
@app.task(name="start")
async def start():
    print(time.monotonic(), flush=True)
async def main():
    async with app.open_async():
        print("ready", flush=True)
        await app.run_worker_async(concurrency=10, install_signal_handlers=False)
asyncio.run(main())
"""


@attrs.frozen
class Size:
    """How much is measured."""

    starts: int
    idle: int


FULL: Final = Size(starts=200, idle=1000)
SHORT: Final = Size(starts=20, idle=100)


@attrs.frozen
class Times:
    """Milliseconds."""

    samples: Sequence[float]

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.samples)

    @property
    def p99(self) -> float:
        """What one in a hundred exceeds."""
        return sorted(self.samples)[int(len(self.samples) * 0.99)]

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f} ms, p99 {self.p99:.1f} ms ({len(self.samples)} samples)"


async def defer_to_start(url: str, count: int) -> Times:
    """Return how long Procrastinate's own worker takes to start a job that was put into an empty queue."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-c", STOCK_WORKER, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert worker.stdout is not None
        await worker.stdout.readline()
        samples: list[float] = []
        for _ in range(count + 1):
            await asyncio.sleep(0.02)
            before = time.monotonic()
            await app.configure_task("start", allow_unknown=True).defer_async()
            samples.append(1000 * (float(await worker.stdout.readline()) - before))
        worker.kill()
        await worker.wait()
    return Times(samples[1:])


async def append_to_first_output(client: Client, count: int) -> Times:
    """Return how long an idle session takes to its first output: its run has left, and a worker has to take a new one."""
    names = [f"idle-{number}" for number in range(min(count, 50))]
    ends = {}
    for name in names:
        await client.create(name, **IDLE)
        await client.say(name, "warm")
        _, ends[name] = await client.turn(name)
    samples: list[float] = []
    while len(samples) < count:
        await asyncio.sleep(2.5)
        for name in names[: count - len(samples)]:
            async with client.subscribe(name, after=ends[name]) as (_, frames):
                before = time.monotonic()
                await client.say(name, "hello")
                await _until_answering(frames)
                samples.append(1000 * (time.monotonic() - before))
            _, ends[name] = await client.turn(name, ends[name])
    return Times(samples)


async def stop_to_coroutine(client: Client, folder: Path, count: int) -> Times:
    """Return how long a ``stop`` takes from the client that sends it to the coroutine on a worker that it cancels."""
    await client.create("stopping", task="stopped")
    after: int | None = None
    samples: list[float] = []
    for number in range(count):
        note = folder / f"stopped-{number}"
        async with client.subscribe("stopping", after=after, window=60) as (_, frames):
            await client.say("stopping", str(note))
            await _until_answering(frames)
            before = time.time()
            await client.append("stopping", json.dumps({"kind": "stop"}))
        _, after = await client.turn("stopping", after)
        samples.append(1000 * (float(note.read_text(encoding="ascii")) - before))
    return Times(samples)


async def _until_answering(frames: AsyncIterator[Frame]) -> None:
    async for frame in frames:
        if any(delta_of(record) for record in frame.records):
            return


async def megabytes_with_idle_runs(client: Client, workers: Sequence[WorkerProcess], count: int) -> float:
    """Return what the workers take together while so many sessions have a live run that waits."""

    async def begin(name: str) -> None:
        await client.create(name, **LIVE)
        await client.say(name, "hello")
        await client.turn(name, window=60)

    names = [f"live-{number}" for number in range(count)]
    for first in range(0, count, 20):
        await asyncio.gather(*map(begin, names[first : first + 20]))
    return sum(_megabytes(worker.pid) for worker in workers)


async def seconds_to_take_over(client: Client, workers: Sequence[WorkerProcess]) -> float:
    """Return how long a session is without a run after both workers were killed, and one of them started again at once."""
    await client.create("killed")
    await client.say("killed", "slow one")
    async with client.subscribe("killed", window=60) as (_, frames):
        await anext(frames)
    for worker in workers:
        worker.kill()
    killed = time.monotonic()
    await asyncio.to_thread(workers[0].start)
    while len((await client.call("GET", "/api/v1/sessions/killed/runs")).body["data"]) < 2:
        await asyncio.sleep(0.05)
    return time.monotonic() - killed


def _megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(SIZE))


async def _make_bare(url: str) -> str:
    import asyncpg

    connection = await asyncpg.connect(url)
    await connection.execute("create database stock")
    await connection.close()
    return with_database(url, "stock")


async def _measure(fleet: Fleet, folder: Path, size: Size) -> None:
    stock = await defer_to_start(await _make_bare(fleet.postgres.url), size.starts)
    print(f"Procrastinate alone, defer to start: {stock}", flush=True)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        client = Client(http, fleet.servers[0].address, KEY)
        first = await append_to_first_output(client, size.starts)
        ratio = first.p50 / stock.p50
        print(
            f"append on an idle session to first output: {first}; {ratio:.1f} times (aim: {FIRST_OUTPUT_AIM:.0f})",
            flush=True,
        )
        stopped = await stop_to_coroutine(client, folder, size.starts)
        print(f"stop to the coroutine: {stopped} (aim for p99: {STOP_AIM:.0f})", flush=True)
        megabytes = await megabytes_with_idle_runs(client, fleet.workers, size.idle)
        print(
            f"{size.idle} sessions with a live idle run: {megabytes:.0f} MB on two workers (aim: {MEMORY_AIM:.0f})",
            flush=True,
        )
        seconds = await seconds_to_take_over(client, fleet.workers)
        print(f"killed until taken over: {seconds:.1f} s (aim: {TAKE_OVER_AIM:.0f})", flush=True)


def main() -> int:
    """Measure, and print what was found. A missed aim changes nothing; 2 if a system cannot be started."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="take a fraction of the time")
    size = SHORT if parser.parse_args().short else FULL
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
            given = {"SESSIONS_STALL": f"{STALL:.0f}", "SESSIONS_CONCURRENCY": "1000"}
            asyncio.run(_measure(start(stack, Path(folder), 1, 2, **given), Path(folder), size))
    except CannotStartError as error:
        print(error, file=sys.stderr)
        return MISSING
    return 0


if __name__ == "__main__":
    sys.exit(main())
