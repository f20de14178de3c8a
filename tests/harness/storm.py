"""Writers that never give up against a server that is killed again and again.

By hand: ``PYTHONPATH=tests python -m harness.storm --rounds 10 --writers 64``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import attrs

from harness.chain import Chain, broken_links
from harness.client import Client, delta_of, is_control, message
from harness.server import KEY, ServerProcess

RETRY_PAUSE = 0.05
SETTLE_SECONDS = 60


class Victim(Protocol):
    """A process that can be killed and started again on the same data."""

    def kill(self) -> None:
        """End it with SIGKILL."""

    def start(self) -> object:
        """Start it, and wait until it works."""


@attrs.define
class Findings:
    """What a storm did, and everything that was wrong at its end."""

    kills: int = 0
    acknowledged: int = 0
    retried: int = 0
    stored: int = 0
    turns: int = 0
    problems: list[str] = attrs.field(factory=list)

    def __str__(self) -> str:
        counts = f"{self.kills} kills, {self.acknowledged} acknowledged ({self.retried} retries), {self.stored} stored"
        return f"{counts}, {self.turns} turns completed, {len(self.problems)} problems"


@attrs.define(eq=False)
class Writer:
    """Appends chat messages that form a hash chain; sends each until it is acknowledged.

    Attributes:
        pause: Seconds between two messages.
    """

    name: str
    session: str
    client: Client
    findings: Findings
    pause: float = 0
    acknowledged: dict[int, str] = attrs.field(factory=dict)

    async def write_until(self, stop: asyncio.Event) -> None:
        chain, number = Chain(self.name), 0
        while not stop.is_set():
            text = chain.link()
            seq = await self._send(message(text), f"{self.name}-{number}")
            if seq in self.acknowledged:
                self.findings.problems.append(f"{self.name}: seq {seq} was acknowledged twice")
            self.acknowledged[seq] = text
            number += 1
            if self.pause:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), self.pause)

    async def _send(self, text: str, part_id: str) -> int:
        while True:
            try:
                answer = await self.client.append(self.session, text, part_id)
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                answer = None
            if answer is not None and answer.status == 200:
                self.findings.acknowledged += 1
                return int(answer.body["seq"])
            if answer is not None and answer.status < 500:
                self.findings.problems.append(f"{self.name}: {answer.status} {answer.body}")
                await asyncio.sleep(1)
            self.findings.retried += 1
            await asyncio.sleep(RETRY_PAUSE)


async def storm(
    data: Path,
    environment: dict[str, str] | None = None,
    *,
    rounds: int,
    writers: int,
    sessions: int,
    seconds: float,
    seed: int = 0,
    victims: Sequence[Victim] = (),
    is_answered: bool = True,
) -> Findings:
    """Kill the server *rounds* times, each after about *seconds* of writing; look at everything afterwards.

    *environment* tells the server which systems to use, if not SQLite in *data*. Where *victims* are given they are killed
    in the server's place, by turns, and it goes on. If not *is_answered*, the task is one that nobody runs.
    """
    findings, chance, stop = Findings(), random.Random(seed), asyncio.Event()
    with ServerProcess(data, environment=environment or {}) as server:
        timeout = aiohttp.ClientTimeout(total=15)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
            client = Client(http, server.address, KEY)
            names = [f"storm-{number}" for number in range(sessions)]
            for name in names:
                assert (await client.create(name, task="echo" if is_answered else "nobody")).status == 201
            crew = [Writer(f"w{n}", names[n % sessions], client, findings) for n in range(writers)]
            async with asyncio.TaskGroup() as tasks:
                for writer in crew:
                    tasks.create_task(writer.write_until(stop))
                for victim in islice(cycle(victims or (server,)), rounds):
                    await asyncio.sleep(seconds * chance.uniform(0.5, 1.5))
                    victim.kill()
                    findings.kills += 1
                    await asyncio.to_thread(victim.start)
                await asyncio.sleep(seconds)
                stop.set()
            for name in names:
                mine = [writer for writer in crew if writer.session == name]
                await inspect(client, name, mine, findings, is_answered=is_answered)
    return findings


async def inspect(
    client: Client, name: str, writers: list[Writer], findings: Findings, *, is_answered: bool = True
) -> None:
    """Note what is wrong with a session's messages, of which *writers* know, and with their answers if there are any."""
    stored = await client.records(name, "in")
    findings.stored += len(stored)
    seqs = [record["seqNum"] for record in stored]
    if seqs != sorted(set(seqs)):  # a gap may be a guard's; a record that is missing breaks a chain
        findings.problems.append(f"{name}: seqs do not rise")
    texts = {record["seqNum"]: text_in(record) for record in stored}
    findings.problems.extend(f"{name}: {what}" for what in broken_links(texts.values()))
    for writer in writers:
        for seq, text in writer.acknowledged.items():
            if texts.get(seq) != text:
                findings.problems.append(f"{name}: {writer.name} was told seq {seq}, which holds something else")
    if is_answered:
        await _inspect_answers(client, name, texts, findings)


async def _inspect_answers(client: Client, name: str, texts: dict[int, str], findings: Findings) -> None:
    out = await _settled(client, name, max(texts))
    answer, answers = "", dict[int, list[str]]()
    for record in out:
        shown = {"headers": record.get("headers", []), "body": json.dumps({"data": record["data"]})}
        if is_control(shown, "turn-complete"):
            covered = int(dict(record["headers"])["session-in-event-id"])
            answers.setdefault(covered, []).append(answer)
            answer = ""
        answer += delta_of(shown)
    findings.turns += sum(len(found) for found in answers.values())
    for seq, text in texts.items():
        found = answers.get(seq, [])
        if len(found) != 1 or text not in found[0]:
            findings.problems.append(f"{name}: message {seq} has {len(found)} answers: {found!r:.200}")


async def _settled(client: Client, name: str, last: int) -> list[dict[str, Any]]:
    """Read ``out`` once its newest turn-complete covers *last*."""
    out: list[dict[str, Any]] = []
    for _ in range(SETTLE_SECONDS * 2):
        out = await client.records(name, "out")
        covered = [int(dict(r["headers"]).get("session-in-event-id", -1)) for r in out if r.get("headers")]
        if covered and covered[-1] >= last:
            return out
        await asyncio.sleep(0.5)
    return out


def text_in(record: dict[str, Any]) -> str:
    """Return the text of the chat message in a drained ``in`` record."""
    return str(json.loads(record["data"])["payload"]["message"]["parts"][0]["text"])


def main() -> None:
    """Run a storm from the command line and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--writers", type=int, default=64)
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        findings = asyncio.run(storm(Path(folder), **vars(options)))
    print(findings, *findings.problems[:20], sep="\n")


if __name__ == "__main__":
    main()
