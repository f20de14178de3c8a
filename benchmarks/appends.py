"""What an append costs, beside the least that any server has to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from benchmarks.figures import Aim, Figure, Series, p50_ratios, rate_ratios
from benchmarks.load import AppendLoad, Writer
from benchmarks.processes import LoadClient, spawned
from benchmarks.progress import Progress
from benchmarks.samples import Samples
from benchmarks.scale import Scale
from benchmarks.stage import Stage
from benchmarks.yardsticks import serve_bare, serve_synced

BARE: Final = "bare"
SYNCED: Final = "bare + synced commit"
SERVER: Final = "server"
TARGETS: Final = (BARE, SYNCED, SERVER)

Sessions = tuple[str, ...]
ALONE: Final[Sessions] = ("alone",)
CROWD: Final[Sessions] = tuple(f"crowd-{number}" for number in range(64))
CROWDS: Final = (ALONE, CROWD)

PER_SECOND: Final = {ALONE: 15_000, CROWD: 30_000}
"""More appends than any target takes, so that time ends a measurement, and not a lack of them."""

P50_AIM: Final = 1.3
RATE_AIM: Final = 0.45


@attrs.frozen
class Appends:
    """What was found.

    Attributes:
        series: By target and number of writers.
        acknowledged: How many appends each session of the server has acknowledged.
    """

    series: dict[tuple[str, int], Series] = attrs.field(factory=dict)
    acknowledged: Counter[str] = attrs.field(factory=Counter)

    @property
    def figures(self) -> list[Figure]:
        """What matters."""
        alone, crowd = len(ALONE), len(CROWD)
        p50 = p50_ratios(self.series[SERVER, alone], self.series[SYNCED, alone])
        rate = rate_ratios(self.series[SERVER, crowd], self.series[BARE, crowd])
        return [
            Figure(name=f"append, 1 writer: p50 / {SYNCED}", values=p50, aim=P50_AIM),
            Figure(name=f"append, {crowd} writers: throughput / {BARE}", values=rate, aim=RATE_AIM, side=Aim.AT_LEAST),
        ]


@attrs.define(eq=False)
class _Bench:
    ports: dict[str, int]
    tokens: dict[str, str]
    client: LoadClient
    scale: Scale
    found: Appends = attrs.field(init=False, factory=Appends)

    def warm_up(self) -> None:
        """Let files grow and caches fill. What is acknowledged counts, the time does not."""
        for target in TARGETS:
            self._write(target, CROWD, "warm", 2 * self.scale.crowd_seconds)

    def measure(self, target: str, sessions: Sessions, label: str) -> None:
        seconds = self.scale.alone_seconds if sessions is ALONE else self.scale.crowd_seconds
        samples = self._write(target, sessions, label, seconds)
        self.found.series.setdefault((target, len(sessions)), Series()).rounds.append(samples)

    def _write(self, target: str, sessions: Sessions, label: str, seconds: float) -> Samples:
        writers = tuple(Writer(name=label, session=name, token=self.tokens[name]) for name in sessions)
        warm_up = self.scale.warm_up_seconds
        samples = self.client.measure(
            AppendLoad(
                port=self.ports[target],
                writers=writers,
                most=int(PER_SECOND[sessions] * (warm_up + seconds)),
                warm_up_seconds=warm_up,
                seconds=seconds,
            )
        )
        if target == SERVER:
            self.found.acknowledged.update(dict(zip(sessions, samples.sent, strict=True)))
        return samples


def measure(stage: Stage, client: LoadClient, folder: Path, scale: Scale, progress: Progress) -> Appends:
    """Measure appends to all targets, in turns. Leaves the server running."""
    progress.say("starting the servers")
    stage.start()
    stage.create([*ALONE, *CROWD])
    with _yardsticks(folder) as ports:
        bench = _Bench({**ports, SERVER: stage.port}, stage.tokens, client, scale)
        progress.say("warming up")
        bench.warm_up()
        for number in range(scale.rounds):
            for sessions in CROWDS:
                for target in _in_turn(number):
                    progress.say(f"round {number + 1} of {scale.rounds}: {target}, writers: {len(sessions)}")
                    bench.measure(target, sessions, f"round-{number}")
    return bench.found


@contextmanager
def _yardsticks(folder: Path) -> Iterator[dict[str, int]]:
    with spawned(serve_bare) as bare, spawned(serve_synced, folder / "yardstick.db") as synced:
        yield {BARE: bare.recv(), SYNCED: synced.recv()}


def _in_turn(number: int) -> Sequence[str]:
    """Let another target begin in every round."""
    first = number % len(TARGETS)
    return TARGETS[first:] + TARGETS[:first]
