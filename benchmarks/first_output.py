"""How soon an agent's answer begins: in a session whose run has left, and in one whose run waits."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

import attrs

from benchmarks import counters, requests
from benchmarks.bench import Bench
from benchmarks.caller import Caller, connect, has_body
from benchmarks.figures import Comparison, Figure, Series, p50_ratios
from benchmarks.load import Exchanges
from benchmarks.processes import spawned
from benchmarks.readers import BATCH, subscribe
from benchmarks.samples import Samples
from benchmarks.section import NOTHING_CHECKED, Row
from benchmarks.stage import ECHO
from benchmarks.targets import BARE, SYNCED
from benchmarks.yardsticks import serve_bare, serve_synced
from harness.client import message

IDLE: Final = "server, idle session"
WARM: Final = "server, run waiting"
TARGETS: Final = (BARE, SYNCED, WARM, IDLE)
IDLE_SECONDS: Final = 1
"""The least that a session can ask for: so long its run waits for a message before it leaves."""
WARM_SECONDS: Final = 3600
AIM: Final = 10.0
PATIENCE_SECONDS: Final = 20
_TURN_COMPLETE: Final = b"turn-complete"
_EVENT_ID: Final = re.compile(rb"\nid: (\d+)\n")


@attrs.frozen(kw_only=True)
class Conversation:
    """A session, and how far its ``out`` has been read."""

    session: str
    token: str
    after: int = -1

    def append(self, label: str) -> bytes:
        """Say something."""
        return requests.append(self.session, self.token, message("hello"), f"{label}-{self.after}")

    def subscribe(self) -> bytes:
        """Read the answer."""
        return requests.subscribe(self.session, self.token, None if self.after < 0 else self.after)


@attrs.frozen(kw_only=True)
class Answered:
    """Latencies from sending a message until a reader has the first chunk of its answer, and where ``out`` ends now."""

    samples: Samples
    conversations: tuple[Conversation, ...]


@attrs.frozen(kw_only=True)
class FirstOutputs:
    """Messages to sessions, one after the other, each with a reader that is there before."""

    port: int
    conversations: tuple[Conversation, ...]

    def run(self) -> Answered:
        """Say something in each session, and time the first chunk of the answer."""
        return asyncio.run(self._run())

    async def _run(self) -> Answered:
        started, busy = perf_counter(), process_time()
        answers = [await self._ask(conversation) for conversation in self.conversations]
        seconds = perf_counter() - started
        return Answered(
            samples=Samples(
                latencies=[latency for latency, _ in answers],
                seconds=seconds,
                sent=[len(answers)],
                busy=(process_time() - busy) / seconds,
            ),
            conversations=tuple(conversation for _, conversation in answers),
        )

    async def _ask(self, conversation: Conversation) -> tuple[float, Conversation]:
        [reader] = await subscribe(self.port, [conversation.subscribe()], PATIENCE_SECONDS)
        caller = await connect(self.port, Caller(iter([conversation.append("ask")]), has_body))
        async with asyncio.timeout(PATIENCE_SECONDS):
            begun = reader.until(BATCH)
            sent_at = perf_counter()
            caller.send()
            latency = await begun - sent_at
            if not any(_TURN_COMPLETE in data for _, data in reader.pieces):
                await reader.until(_TURN_COMPLETE)
            await caller.done
        reader.leave()
        caller.close()
        last = int(_EVENT_ID.findall(b"".join(data for _, data in reader.pieces))[-1])
        return latency, attrs.evolve(conversation, after=last)


@attrs.frozen
class FirstOutput:
    """What was found, by target."""

    series: dict[str, Series] = attrs.field(factory=dict)
    checked = NOTHING_CHECKED

    head = ("first output", "p50 ms", "p99 ms")

    @property
    def rows(self) -> list[Row]:
        """One for each target."""
        return [(target, f"{self.series[target].p50:.3f}", f"{self.series[target].p99:.3f}") for target in TARGETS]

    @property
    def figures(self) -> list[Figure]:
        """What matters."""
        idle = self.series[IDLE]
        return [
            Figure(name=f"first output, idle session: p50 / {yardstick} request", values=values, aim=AIM)
            for yardstick in (BARE, SYNCED)
            for values in [p50_ratios(idle, self.series[yardstick])]
        ]

    @property
    def comparisons(self) -> list[Comparison]:
        """All targets."""
        p50 = {target: self.series[target].p50 for target in TARGETS}
        return [
            Comparison(
                name="first output after an append: p50", unit="ms", values=p50, yardsticks=2, limit=AIM * p50[BARE]
            )
        ]

    def as_json(self) -> list[dict[str, Any]]:
        """Return everything that was measured."""
        return [{"target": target, **series.as_json()} for target, series in self.series.items()]


def measure(bench: Bench) -> FirstOutput:
    """Wake sessions, and time plain requests to the yardsticks in between."""
    stage, rounds = bench.stage, bench.scale.first_output_rounds
    bench.progress.expect(rounds)
    found = FirstOutput()
    with _yardsticks(bench.folder) as ports:
        stage.start()
        idle = _converse(bench, "idle", IDLE_SECONDS)
        warm = _converse(bench, "warm", WARM_SECONDS)
        warm = _say(bench, warm).conversations  # the first answer has a run to start
        for number in range(rounds):
            bench.progress.step(f"first output: round {number + 1} of {rounds}")
            counters.await_value(stage.port, counters.RUNS_ENDED, len(idle) * (number + 1))
            answered = _say(bench, idle)
            idle = answered.conversations
            found.series.setdefault(IDLE, Series()).rounds.append(answered.samples)
            answered = _say(bench, warm)
            warm = answered.conversations
            found.series.setdefault(WARM, Series()).rounds.append(answered.samples)
            for target, port in ports.items():
                samples = bench.client.measure(Exchanges(port, _requests(idle), has_body))
                found.series.setdefault(target, Series()).rounds.append(samples)
        stage.stop()
    return found


def _converse(bench: Bench, name: str, idle_seconds: int) -> tuple[Conversation, ...]:
    """Create sessions. The first run of each starts at once, and waits."""
    names = [f"{name}-{number}" for number in range(bench.scale.first_output_sessions)]
    bench.stage.create(names, ECHO, idleTimeoutInSeconds=idle_seconds)
    return tuple(Conversation(session=name, token=bench.stage.tokens[name]) for name in names)


def _say(bench: Bench, conversations: tuple[Conversation, ...]) -> Answered:
    return bench.client.measure(FirstOutputs(port=bench.stage.port, conversations=conversations))


def _requests(conversations: tuple[Conversation, ...]) -> tuple[bytes, ...]:
    return tuple(conversation.append("bare") for conversation in conversations)


@contextmanager
def _yardsticks(folder: Path) -> Iterator[dict[str, int]]:
    with spawned(serve_bare) as bare, spawned(serve_synced, folder / "first-output.db") as synced:
        yield {BARE: bare.recv().port, SYNCED: synced.recv().port}
