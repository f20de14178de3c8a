"""Several servers and workers on shared systems, all of which are killed again and again, the systems as well.

By hand: ``PYTHONPATH=tests python -m harness.fleet_storm --profile scale --seconds 300 --sessions 200``.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import queue
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio.to_thread
import asyncpg
import attrs

from harness.client import Client
from harness.fleet import Fleet, start
from harness.leftovers import find_at_rest, find_at_the_end
from harness.server import KEY
from harness.services import CannotStartError
from harness.storm import Findings, Victim, Writer, inspect
from harness.watching import LOST, Reader, Waiter, epochs_that_fall, find_unlisted
from sessions_adapters.profiles import POSTGRES, SCALE

SAMPLE_SECONDS: Final = 0.25
CONFIG: Final = {"basePayload": {}, "maxAttempts": 10}
"""A message is not given up, however often its workers are killed."""
CAN_WRITE: Final = """
    select session.id from sessions.session join sessions.run on run.session_id = session.id
    where run.status = 'EXECUTING' and run.epoch = session.epoch group by session.id having count(*) > 1
"""
NOT_STARTED: Final = (RuntimeError, CannotStartError, queue.Empty)


@attrs.define
class FleetFindings(Findings):
    """What also counts in a storm over a fleet."""

    killed: Counter[str] = attrs.field(factory=Counter)
    samples: int = 0
    connects: int = 0
    read: int = 0
    waits: Counter[str] = attrs.field(factory=Counter)

    def __str__(self) -> str:
        killed = ", ".join(f"{number} {what}" for what, number in sorted(self.killed.items()))
        waits = ", ".join(f"{number} {how}" for how, number in sorted(self.waits.items()))
        watched = f"{self.read} records read over {self.connects} connections, {self.samples} samples, waits: {waits}"
        return f"{super().__str__()}; killed: {killed}; {watched}"


@attrs.define(eq=False, kw_only=True)
class FleetStorm:
    """One storm over a fleet.

    Attributes:
        rate: So many messages are written per second, by all writers together, while nothing is down.
    """

    fleet: Fleet
    clients: list[Client]
    sessions: int
    rate: float
    chance: random.Random
    findings: FleetFindings = attrs.field(factory=FleetFindings)
    writers: list[Writer] = attrs.field(init=False)
    readers: list[Reader] = attrs.field(init=False)
    waiters: list[Waiter] = attrs.field(init=False)
    _down: set[int] = attrs.field(init=False, factory=set)

    @property
    def names(self) -> list[str]:
        """The sessions: two writers and two readers each, and one in ten has somebody who waits."""
        return [f"storm-{number}" for number in range(self.sessions)]

    def __attrs_post_init__(self) -> None:
        turns, pause = itertools.cycle(self.clients), 2 * self.sessions / self.rate
        self.writers = [
            Writer(f"{name}-{n}", name, next(turns), self.findings, pause) for name in self.names for n in range(2)
        ]
        self.readers = [Reader(name, io, self.clients, self.chance) for name in self.names for io in ("in", "out")]
        self.waiters = [Waiter(name, self.clients, self.chance) for name in self.names[::10]]

    async def rage(self, seconds: float, pause: float) -> None:
        """Write, read and wait, and kill a process about every *pause* seconds, for *seconds*."""
        stop = asyncio.Event()
        for name in self.names:
            assert (await self.clients[0].create(name, task="signed", triggerConfig=CONFIG)).status == 201
        async with asyncio.TaskGroup() as tasks:
            for writer in self.writers:
                tasks.create_task(self._write(writer, stop))
            for reader in self.readers:
                tasks.create_task(reader.go_on_until(stop))
            for waiter in self.waiters:
                tasks.create_task(waiter.go_on_until(stop))
            tasks.create_task(self._sample_until(stop))
            await self._kill(seconds, pause)
            stop.set()

    async def _write(self, writer: Writer, stop: asyncio.Event) -> None:
        await asyncio.sleep(self.chance.uniform(0, writer.pause))
        await writer.write_until(stop)

    async def look(self) -> None:
        """Note what is wrong with what is stored, what was seen, and what is left, while all processes run again."""
        client = self.clients[0]
        for name in self.names:
            await inspect(client, name, [writer for writer in self.writers if writer.session == name], self.findings)
        stored = {(name, io): await client.records(name, io) for name in self.names for io in ("in", "out")}
        for reader in self.readers:
            self._note_what_was_read(reader, stored[reader.session, reader.io])
        for waiter in self.waiters:
            self.findings.waits.update(waiter.ended)
            self.findings.problems += waiter.problems(stored[waiter.session, "in"])
        for name in self.names:
            self.findings.problems += epochs_that_fall(name, stored[name, "out"])
        self.findings.problems += await find_unlisted(client, self.names)
        self.findings.problems += await find_at_rest(self.fleet)

    def _note_what_was_read(self, reader: Reader, stored: list[dict[str, Any]]) -> None:
        self.findings.connects += reader.connects
        self.findings.read += reader.count
        self.findings.problems += reader.differences(stored)

    async def end(self) -> None:
        """End servers and workers as an operator does, and note what they leave behind."""
        for process in (*self.fleet.workers, *self.fleet.servers):
            code = await anyio.to_thread.run_sync(process.stop)
            if code != 0:
                self.findings.problems.append(f"{process.command()[3]} ended with {code}: {process.output[-5:]}")
        self.findings.problems += await find_at_the_end(self.fleet)

    # --- killing ---

    async def _kill(self, seconds: float, pause: float) -> None:
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as reviving:
            while time.monotonic() < end:
                await asyncio.sleep(pause * self.chance.uniform(0.5, 1.5))
                up = [victim for victim in self.fleet.victims if id(victim) not in self._down]
                if 2 * len(up) > len(self.fleet.victims):  # where most is down there is little left to break
                    await self._kill_one(self.chance.choice(up), reviving)

    async def _kill_one(self, victim: Victim, reviving: asyncio.TaskGroup) -> None:
        self._down.add(id(victim))
        await anyio.to_thread.run_sync(victim.kill)
        self.findings.kills += 1
        self.findings.killed[type(victim).__name__] += 1
        reviving.create_task(self._revive(victim))

    async def _revive(self, victim: Victim) -> None:
        """Start it again and again until it works, as a supervisor does: what it needs may be down itself."""
        while True:
            try:
                await anyio.to_thread.run_sync(victim.start)
            except NOT_STARTED:
                await anyio.to_thread.run_sync(victim.kill)
                await asyncio.sleep(0.2)
            else:
                self._down.discard(id(victim))
                return

    # --- sampling ---

    async def _sample_until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                async with self._connection() as connection:
                    while not stop.is_set():
                        await self._sample(connection)
                        await asyncio.sleep(SAMPLE_SECONDS)
            except LOST:
                await asyncio.sleep(SAMPLE_SECONDS)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        connection = await asyncpg.connect(self.fleet.postgres.url, timeout=5, command_timeout=10)
        try:
            yield connection
        finally:
            connection.terminate()

    async def _sample(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        doubled = await connection.fetch(CAN_WRITE)
        self.findings.samples += 1
        self.findings.problems += [f"{row['id']}: several runs may write" for row in doubled]


async def storm(
    fleet: Fleet, *, sessions: int, seconds: float, pause: float, rate: float, seed: int = 0
) -> FleetFindings:
    """Let a storm rage over *fleet*; look at everything afterwards, and end servers and workers."""
    timeout, connector = aiohttp.ClientTimeout(total=15), aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        clients = [Client(http, server.address, KEY) for server in fleet.servers]
        chance = random.Random(seed)
        raging = FleetStorm(fleet=fleet, clients=clients, sessions=sessions, rate=rate, chance=chance)
        await raging.rage(seconds, pause)
        await raging.look()
        await raging.end()
    return raging.findings


def main() -> int:
    """Run a storm from the command line and print what was found; 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=(POSTGRES, SCALE), default=POSTGRES)
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--pause", type=float, default=1, help="seconds between two kills")
    parser.add_argument("--rate", type=float, default=60, help="messages per second, in all")
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    with (
        tempfile.TemporaryDirectory(prefix="sessions-storm-", ignore_cleanup_errors=True) as folder,
        ExitStack() as stack,
    ):
        fleet = start(stack, Path(folder), options.pop("servers"), options.pop("workers"), options.pop("profile"))
        findings = asyncio.run(storm(fleet, **options))
    print(findings, *findings.problems[:60], sep="\n")
    return int(bool(findings.problems))


if __name__ == "__main__":
    sys.exit(main())
