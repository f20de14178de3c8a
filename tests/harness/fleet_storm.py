"""Several servers and workers on one Postgres, all of which are killed again and again, the database as well.

By hand: ``PYTHONPATH=tests python -m harness.fleet_storm --seconds 300 --sessions 200``.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import attrs

from harness.client import Client, is_command
from harness.postgres import PostgresProcess
from harness.server import KEY, ServerProcess
from harness.storm import Findings, Victim, Writer, inspect
from harness.worker import WorkerProcess
from sessions_adapters.profiles import POSTGRES, PROCRASTINATE, Backends, migrate
from sessions_server.config import variable_of

AGENTS: Final = "harness.workers_agents:agents"
TESTS: Final = str(Path(__file__).parents[1])
STALL_SECONDS: Final = 3
REST_SECONDS: Final = 60.0
KEY_OF_ROOT_KEYS: Final = "c2Vzc2lvbnMtdGVzdHMtc2Vzc2lvbnMtdGVzdHMtMTI="
LEFT_OVER: Final = {
    "runs that wait": "select count(*) from sessions.run where status in ('PENDING', 'DELAYED')",
    "unsettled runs": "select count(*) from sessions.run where ended_at is not null and settled_at is null",
    "jobs of ended runs": """
        select count(*) from sessions_procrastinate.procrastinate_jobs job
        join sessions.run on run.id = job.args->>'run' where run.ended_at is not null
    """,
    "registered waits": "select count(*) from sessions.wait_member",
    "open transactions": """
        select count(*) from pg_stat_activity where state like 'idle in transaction%' and state_change < now() - interval '5 s'
    """,
    "leaders too many": """
        select greatest(count(*) - 1, 0) from pg_locks where locktype = 'advisory' and granted and database =
            (select oid from pg_database where datname = current_database())
    """,
}
CAN_WRITE: Final = """
    select session.id from sessions.session join sessions.run on run.session_id = session.id
    where run.status = 'EXECUTING' and run.epoch = session.epoch group by session.id having count(*) > 1
"""


@attrs.define(eq=False)
class Reader:
    """Follows ``out`` of a session, now with this server, now with that one, from where it was."""

    session: str
    clients: list[Client]
    findings: Findings
    chance: random.Random
    seen: list[int] = attrs.field(factory=list)

    async def read_until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                async with asyncio.timeout(self.chance.uniform(1, 5)):
                    await self._read(self.chance.choice(self.clients))
            except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError):
                await asyncio.sleep(0.05)

    async def _read(self, client: Client) -> None:
        after = self.seen[-1] if self.seen else None
        async with client.subscribe(self.session, after=after, window=10) as (response, frames):
            if response.status != 200:
                return
            async for frame in frames:
                self.seen += [r["seq_num"] for r in frame.records if not is_command(r)]

    def compare(self, stored: list[dict[str, Any]]) -> None:
        """Note what it has seen otherwise than it is stored."""
        seqs = [record["seqNum"] for record in stored][: len(self.seen)]
        if self.seen != seqs:
            self.findings.problems.append(f"{self.session}: a reader saw {self.seen[-5:]}, stored is {seqs[-5:]}")


@attrs.define(eq=False)
class Fleet:
    """Servers, workers and their database."""

    postgres: PostgresProcess
    servers: list[ServerProcess]
    workers: list[WorkerProcess]

    @property
    def victims(self) -> list[Victim]:
        return [*self.servers, *self.workers, self.postgres]


def start(stack: ExitStack, folder: Path, servers: int, workers: int, **variables: str) -> Fleet:
    """Start a fleet with an empty database; *stack* ends it. All processes get the *variables*."""
    folder.chmod(0o711)  # the database's server runs as another user where this is root
    place = folder / "postgres"
    place.mkdir()
    postgres = stack.enter_context(PostgresProcess(place))
    backends = Backends(profile=POSTGRES, data=folder, database_url=postgres.url, dispatcher=PROCRASTINATE)
    asyncio.run(migrate(backends))
    environment = {variable_of(name): str(value) for name, value in attrs.asdict(backends).items() if value is not None}
    environment |= {"SESSIONS_STALL": str(STALL_SECONDS), "PYTHONPATH": TESTS, "SESSIONS_LOG_LEVEL": "ERROR"}
    environment |= {"SESSIONS_ENCRYPTION_KEY": KEY_OF_ROOT_KEYS} | variables
    return Fleet(
        postgres,
        [stack.enter_context(ServerProcess(folder, agents="none", environment=environment)) for _ in range(servers)],
        [stack.enter_context(WorkerProcess(folder, agents=AGENTS, environment=environment)) for _ in range(workers)],
    )


async def storm(fleet: Fleet, *, sessions: int, seconds: float, pause: float, seed: int = 0) -> Findings:
    """Kill a random process about every *pause* seconds, for *seconds*; look at everything afterwards."""
    findings, chance, stop = Findings(), random.Random(seed), asyncio.Event()
    timeout, connector = aiohttp.ClientTimeout(total=15), aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        clients = [Client(http, server.address, KEY) for server in fleet.servers]
        names = [f"storm-{number}" for number in range(sessions)]
        for name in names:
            assert (await clients[0].create(name, task="signed")).status == 201
        turns = itertools.cycle(clients)
        crew = [Writer(f"{name}-{n}", name, next(turns), findings) for name in names for n in range(2)]
        readers = [Reader(name, clients, findings, chance) for name in names]
        async with asyncio.TaskGroup() as tasks:
            for hand in crew:
                tasks.create_task(hand.write_until(stop))
            for reader in readers:
                tasks.create_task(reader.read_until(stop))
            await _kill(fleet, chance, findings, seconds, pause)
            stop.set()
        for name in names:
            await inspect(clients[0], name, [hand for hand in crew if hand.session == name], findings)
        for reader in readers:
            stored = await clients[0].records(reader.session, "out")
            reader.compare(stored)
            findings.problems += _epochs_that_fall(reader.session, stored)
    await _look_for_what_is_left(fleet.postgres.url, findings)
    return findings


async def _kill(fleet: Fleet, chance: random.Random, findings: Findings, seconds: float, pause: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(pause * chance.uniform(0.5, 1.5))
        victim = chance.choice(fleet.victims)
        await asyncio.to_thread(victim.kill)
        findings.kills += 1
        await asyncio.to_thread(victim.start)
        connection = await asyncpg.connect(fleet.postgres.url)
        doubled = await connection.fetch(CAN_WRITE)
        await connection.close()
        findings.problems += [f"{row['id']}: several runs may write" for row in doubled]


def _epochs_that_fall(name: str, stored: list[dict[str, Any]]) -> list[str]:
    """Say where a run has written after its successor."""
    chunks = [json.loads(data) if isinstance(data, str) else data for record in stored if (data := record["data"])]
    epochs = [chunk["data"] for chunk in chunks if chunk["type"] == "data-epoch"]
    return [f"{name}: epoch {late} after {early}" for early, late in itertools.pairwise(epochs) if late < early]


async def _look_for_what_is_left(url: str, findings: Findings) -> None:
    """Note what is still there that should have gone, some time after the last message."""
    connection = await asyncpg.connect(url)
    deadline = time.monotonic() + REST_SECONDS
    left = await _count(connection)
    while left and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        left = await _count(connection)
    await connection.close()
    findings.problems += [f"{number} {what} are left" for what, number in left.items()]


async def _count(connection: asyncpg.Connection[asyncpg.Record]) -> dict[str, int]:
    counts = {what: await connection.fetchval(statement) for what, statement in LEFT_OVER.items()}
    return {what: number for what, number in counts.items() if number}


def main() -> None:
    """Run a storm from the command line and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--pause", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        fleet = start(stack, Path(folder), options.pop("servers"), options.pop("workers"))
        findings = asyncio.run(storm(fleet, **options))
    print(findings, *findings.problems[:20], sep="\n")


if __name__ == "__main__":
    main()
