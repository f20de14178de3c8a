"""What an append costs, beside the least that any server has to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import attrs

from benchmarks import chains
from benchmarks.bench import Bench
from benchmarks.direct import DirectCalls, inserts, s2_appends
from benchmarks.figures import Aim, Comparison, Figure, Series, rate_ratios, ratios
from benchmarks.load import AppendLoad, Writer
from benchmarks.processes import Job, spawned
from benchmarks.samples import Samples
from benchmarks.section import Checked, Row
from benchmarks.targets import BARE, INSERT, S2_APPEND, SERVER, SYNCED, in_turn
from benchmarks.yardsticks import serve_bare, serve_synced
from sessions_adapters.profiles import EMBEDDED, POSTGRES, SCALE

Sessions = tuple[str, ...]
ALONE: Final[Sessions] = ("alone",)
CROWD: Final[Sessions] = tuple(f"crowd-{number}" for number in range(64))
CROWDS: Final = (ALONE, CROWD)

PER_SECOND: Final = {ALONE: 15_000, CROWD: 30_000}
"""More appends than any target takes, so that time ends a measurement, and not a lack of them."""

DIRECT: Final = {INSERT: inserts, S2_APPEND: s2_appends}
"""Yardsticks that are no servers: a lone caller of the system behind."""


@attrs.frozen(kw_only=True)
class Goal:
    """What appends ought to cost.

    Attributes:
        budget: What the p50 of one writer is divided by: the sum of those of yardsticks, each so many times.
        p50_aim: What that ratio ought to be at most.
        rate_aim: Which share of the bare handler's throughput many writers ought to have; None if none is asked for.
        patience: How many times as long as usual a lone writer writes, where an append takes so many times as long.
    """

    budget: Mapping[str, float]
    p50_aim: float
    rate_aim: float | None
    patience: float = 1

    @property
    def targets(self) -> list[str]:
        """What is measured, yardsticks first."""
        return [*dict.fromkeys([BARE, *self.budget]), SERVER]

    @property
    def divisor(self) -> str:
        """What the p50 is divided by, in words."""
        return " + ".join(target if times == 1 else f"{times:g} x {target}" for target, times in self.budget.items())


GOALS: Final = {
    EMBEDDED: Goal(budget={SYNCED: 1}, p50_aim=1.3, rate_aim=0.45),
    POSTGRES: Goal(budget={BARE: 1, INSERT: 2}, p50_aim=1.0, rate_aim=0.4),
    SCALE: Goal(budget={BARE: 1, S2_APPEND: 1.5}, p50_aim=1.0, rate_aim=None, patience=4),
}


@attrs.define
class Appends:
    """What was found.

    Attributes:
        goal: What it is held against.
        series: By target and number of writers.
        acknowledged: How many appends each session of the server has acknowledged.
    """

    goal: Goal
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
        return [*self._p50_figures(), *self._rate_figures()]

    @property
    def comparisons(self) -> list[Comparison]:
        """The latency of one writer, and the throughput of many."""
        alone = self._of_all(len(ALONE))
        crowd = self._of_all(len(CROWD))
        p50 = {target: series.p50 for target, series in alone.items()}
        rate = {target: series.rate for target, series in crowd.items()}
        limit = self.goal.p50_aim * sum(times * p50[target] for target, times in self.goal.budget.items())
        least = None if self.goal.rate_aim is None else self.goal.rate_aim * rate[BARE]
        return [
            Comparison(name="append, 1 writer: p50", unit="ms", values=p50, yardsticks=len(p50) - 1, limit=limit),
            Comparison(
                name=f"append, {len(CROWD)} writers: throughput",
                unit="requests/s",
                values=rate,
                yardsticks=len(rate) - 1,
                limit=least,
            ),
        ]

    def as_json(self) -> list[dict[str, Any]]:
        """Return everything that was measured."""
        return [
            {"target": target, "writers": writers, **series.as_json()}
            for (target, writers), series in self.series.items()
        ]

    def _p50_figures(self) -> Iterator[Figure]:
        series = self._of_all(len(ALONE))
        p50s = {target: [samples.p50 for samples in found.rounds] for target, found in series.items()}
        scaled = [[times * p50 for p50 in p50s[target]] for target, times in self.goal.budget.items()]
        values = ratios(p50s[SERVER], [sum(parts) for parts in zip(*scaled, strict=True)])
        yield Figure(name=f"append, 1 writer: p50 / ({self.goal.divisor})", values=values, aim=self.goal.p50_aim)

    def _rate_figures(self) -> Iterator[Figure]:
        if self.goal.rate_aim is not None:
            series, name = self._of_all(len(CROWD)), f"append, {len(CROWD)} writers: throughput / {BARE}"
            values = rate_ratios(series[SERVER], series[BARE])
            yield Figure(name=name, values=values, aim=self.goal.rate_aim, side=Aim.AT_LEAST)

    def _of_all(self, writers: int) -> dict[str, Series]:
        """Return what was found for so many writers, by target."""
        found = {target: self.series.get((target, writers)) for target in self.goal.targets}
        return {target: series for target, series in found.items() if series is not None}

    def _sorted(self) -> list[tuple[tuple[str, int], Series]]:
        return sorted(self.series.items(), key=lambda item: (item[0][1], self.goal.targets.index(item[0][0])))


def _cells(series: Series) -> Row:
    quantities = f"{series.p50:.3f}", f"{series.p99:.3f}", f"{series.rate:.0f}"
    return (*quantities, f"{series.unrest:.0%}", f"{series.busy:.0%}")


@attrs.define(eq=False)
class _Measuring:
    ports: dict[str, int]
    bench: Bench
    found: Appends

    def warm_up(self) -> None:
        """Let files grow and caches fill. What is acknowledged counts, the time does not."""
        for target in self.targets_of(CROWD):
            self._write(target, CROWD, "warm", 2 * self.bench.scale.crowd_seconds)

    def targets_of(self, sessions: Sessions) -> Sequence[str]:
        """Return what is measured with so many writers."""
        return [target for target in self.found.goal.targets if sessions is ALONE or target not in DIRECT]

    def measure(self, target: str, sessions: Sessions, label: str) -> None:
        scale = self.bench.scale
        seconds = scale.alone_seconds * self.found.goal.patience if sessions is ALONE else scale.crowd_seconds
        samples = self._write(target, sessions, label, seconds)
        self.found.series.setdefault((target, len(sessions)), Series()).rounds.append(samples)

    def _write(self, target: str, sessions: Sessions, label: str, seconds: float) -> Samples:
        samples = self.bench.client.measure(self._job(target, sessions, label, seconds))
        if target == SERVER:
            self.found.acknowledged.update(dict(zip(sessions, samples.sent, strict=True)))
        return samples

    def _job(self, target: str, sessions: Sessions, label: str, seconds: float) -> Job[Samples]:
        tokens, warm_up = self.bench.stage.tokens, self.bench.scale.warm_up_seconds
        if target in DIRECT:
            url = self._url_of(target)
            return DirectCalls(connect=DIRECT[target], url=url, warm_up_seconds=warm_up, seconds=seconds)
        return AppendLoad(
            port=self.ports[target],
            writers=tuple(Writer(name=label, session=name, token=tokens[name]) for name in sessions),
            most=int(PER_SECOND[sessions] * (warm_up + seconds)),
            warm_up_seconds=warm_up,
            seconds=seconds,
        )

    def _url_of(self, target: str) -> str:
        backends = self.bench.stage.backends
        url = backends.database_url if target == INSERT else backends.s2_url
        assert url is not None
        return url


def measure(bench: Bench) -> Appends:
    """Measure appends to all targets, in turns; then restart the server, and read back what it has acknowledged."""
    stage, rounds, progress = bench.stage, bench.scale.rounds, bench.progress
    goal = GOALS[bench.profile]
    stage.start()
    stage.create([*ALONE, *CROWD])
    with _yardsticks(bench, goal) as ports:
        measuring = _Measuring({**ports, SERVER: stage.port}, bench, Appends(goal))
        progress.expect(rounds * sum(len(measuring.targets_of(sessions)) for sessions in CROWDS))
        progress.say("appends: warming up")
        measuring.warm_up()
        for number in range(rounds):
            for sessions in CROWDS:
                for target in in_turn(measuring.targets_of(sessions), number):
                    progress.step(f"appends: round {number + 1} of {rounds}: {target}, writers: {len(sessions)}")
                    measuring.measure(target, sessions, f"round-{number}")
    progress.say("appends: reading everything back")
    stage.restart()
    measuring.found.checked = chains.verify(stage, measuring.found.acknowledged)
    stage.stop()
    return measuring.found


@contextmanager
def _yardsticks(bench: Bench, goal: Goal) -> Iterator[dict[str, int]]:
    with ExitStack() as stack:
        ports = {BARE: stack.enter_context(spawned(serve_bare)).recv().port}
        if SYNCED in goal.targets:
            ports[SYNCED] = stack.enter_context(spawned(serve_synced, bench.folder / "appends.db")).recv().port
        yield ports
