"""What an append costs, beside the least that any server has to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks import chains
from benchmarks.bench import Bench
from benchmarks.figures import Aim, Comparison, Figure, Series, p50_ratios, rate_ratios
from benchmarks.load import AppendLoad, Writer
from benchmarks.processes import spawned
from benchmarks.samples import Samples
from benchmarks.section import Checked, Row
from benchmarks.targets import BARE, SERVER, SYNCED, in_turn
from benchmarks.yardsticks import serve_bare, serve_synced

TARGETS: Final = (BARE, SYNCED, SERVER)

Sessions = tuple[str, ...]
ALONE: Final[Sessions] = ("alone",)
CROWD: Final[Sessions] = tuple(f"crowd-{number}" for number in range(64))
CROWDS: Final = (ALONE, CROWD)

PER_SECOND: Final = {ALONE: 15_000, CROWD: 30_000}
"""More appends than any target takes, so that time ends a measurement, and not a lack of them."""

P50_AIM: Final = 1.3
RATE_AIM: Final = 0.45


@attrs.define
class Appends:
    """What was found.

    Attributes:
        series: By target and number of writers.
        acknowledged: How many appends each session of the server has acknowledged.
    """

    series: dict[tuple[str, int], Series] = attrs.field(factory=dict)
    acknowledged: Counter[str] = attrs.field(factory=Counter)

    checked: Checked = attrs.field(init=False, default=Checked())

    head = ("append", "writers", "p50 ms", "p99 ms", "requests/s", "unrest", "client busy")

    @property
    def rows(self) -> list[Row]:
        """One for each target and number of writers."""
        return [(target, str(writers), *_cells(series)) for (target, writers), series in self._sorted()]

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

    @property
    def comparisons(self) -> list[Comparison]:
        """The latency of one writer, and the throughput of many."""
        alone, crowd = len(ALONE), len(CROWD)
        p50 = {target: self.series[target, alone].p50 for target in TARGETS}
        rate = {target: self.series[target, crowd].rate for target in TARGETS}
        return [
            Comparison(name="append, 1 writer: p50", unit="ms", values=p50, yardsticks=2, limit=P50_AIM * p50[SYNCED]),
            Comparison(
                name=f"append, {crowd} writers: throughput",
                unit="requests/s",
                values=rate,
                yardsticks=2,
                limit=RATE_AIM * rate[BARE],
            ),
        ]

    def as_json(self) -> list[dict[str, Any]]:
        """Return everything that was measured."""
        return [
            {"target": target, "writers": writers, **series.as_json()}
            for (target, writers), series in self.series.items()
        ]

    def _sorted(self) -> list[tuple[tuple[str, int], Series]]:
        return sorted(self.series.items(), key=lambda item: (item[0][1], TARGETS.index(item[0][0])))


def _cells(series: Series) -> Row:
    quantities = f"{series.p50:.3f}", f"{series.p99:.3f}", f"{series.rate:.0f}"
    return (*quantities, f"{series.unrest:.0%}", f"{series.busy:.0%}")


@attrs.define(eq=False)
class _Measuring:
    ports: dict[str, int]
    bench: Bench
    found: Appends = attrs.field(init=False, factory=Appends)

    def warm_up(self) -> None:
        """Let files grow and caches fill. What is acknowledged counts, the time does not."""
        for target in TARGETS:
            self._write(target, CROWD, "warm", 2 * self.bench.scale.crowd_seconds)

    def measure(self, target: str, sessions: Sessions, label: str) -> None:
        scale = self.bench.scale
        seconds = scale.alone_seconds if sessions is ALONE else scale.crowd_seconds
        samples = self._write(target, sessions, label, seconds)
        self.found.series.setdefault((target, len(sessions)), Series()).rounds.append(samples)

    def _write(self, target: str, sessions: Sessions, label: str, seconds: float) -> Samples:
        tokens = self.bench.stage.tokens
        writers = tuple(Writer(name=label, session=name, token=tokens[name]) for name in sessions)
        warm_up = self.bench.scale.warm_up_seconds
        samples = self.bench.client.measure(
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


def measure(bench: Bench) -> Appends:
    """Measure appends to all targets, in turns; then restart the server, and read back what it has acknowledged."""
    stage, rounds, progress = bench.stage, bench.scale.rounds, bench.progress
    progress.expect(rounds * len(CROWDS) * len(TARGETS))
    stage.start()
    stage.create([*ALONE, *CROWD])
    with _yardsticks(bench.folder) as ports:
        measuring = _Measuring({**ports, SERVER: stage.port}, bench)
        progress.say("appends: warming up")
        measuring.warm_up()
        for number in range(rounds):
            for sessions in CROWDS:
                for target in in_turn(TARGETS, number):
                    progress.step(f"appends: round {number + 1} of {rounds}: {target}, writers: {len(sessions)}")
                    measuring.measure(target, sessions, f"round-{number}")
    progress.say("appends: reading everything back")
    stage.restart()
    measuring.found.checked = chains.verify(stage, measuring.found.acknowledged)
    stage.stop()
    return measuring.found


@contextmanager
def _yardsticks(folder: Path) -> Iterator[dict[str, int]]:
    with spawned(serve_bare) as bare, spawned(serve_synced, folder / "appends.db") as synced:
        yield {BARE: bare.recv().port, SYNCED: synced.recv().port}
