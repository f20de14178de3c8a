"""What good traffic costs beside a flood of bad requests: the same appends and readers, calm and flooded, on one fresh server."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any, Final

import attrs

from benchmarks import requests, usage
from benchmarks.bench import Bench
from benchmarks.broadcast import Broadcast, Delivered
from benchmarks.figures import Comparison, Figure, Series, ratios
from benchmarks.flooding import Flooded, Order, flood
from benchmarks.load import Writer
from benchmarks.processes import spawned
from benchmarks.section import Checked, Row
from harness.server import KEY

CALM: Final = "calm"
FLOODED: Final = "flooded"
READERS: Final = 10
RATE: Final = 100.0
AIM: Final = 2.0
_KB_PER_MB: Final = 1024


@attrs.frozen(kw_only=True)
class Weathered:
    """Good traffic of one round.

    Attributes:
        rss: Of the server at its end, in MB.
    """

    delivered: Delivered
    rss: float


@attrs.frozen
class Flood:
    """What was found, calm and flooded, in each round, and what became of the bad requests."""

    rounds: dict[str, list[Weathered]] = attrs.field(factory=dict)
    floods: list[Flooded] = attrs.field(factory=list)

    head = ("beside a flood", "p50 ms", "p99 ms", "server CPU", "RSS MB", "bad requests/s", "answered with")

    @property
    def rows(self) -> list[Row]:
        """Calm, and flooded."""
        rate = statistics.median(each.rate for each in self.floods)
        statuses = sorted({status for each in self.floods for status in each.statuses})
        return [self._row(CALM, "-", "-"), self._row(FLOODED, f"{rate:.0f}", " ".join(statuses))]

    @property
    def figures(self) -> list[Figure]:
        """What matters."""
        calm, flooded = (self._series(weather) for weather in (CALM, FLOODED))
        p99 = ratios([each.p99 for each in flooded.rounds], [each.p99 for each in calm.rounds])
        rss = ratios(self._rss(FLOODED), self._rss(CALM))
        return [
            Figure(name="flood: p99 of good traffic / calm", values=p99, aim=AIM),
            Figure(name="flood: memory of the server / calm", values=rss, aim=AIM),
        ]

    @property
    def comparisons(self) -> list[Comparison]:
        """Latency and memory."""
        p99 = {weather: self._series(weather).p99 for weather in (CALM, FLOODED)}
        rss = {weather: statistics.median(self._rss(weather)) for weather in (CALM, FLOODED)}
        return [
            Comparison(name="beside a flood: p99", unit="ms", values=p99, yardsticks=1, limit=AIM * p99[CALM]),
            Comparison(name="beside a flood: memory", unit="MB", values=rss, yardsticks=1, limit=AIM * rss[CALM]),
        ]

    @property
    def checked(self) -> Checked:
        """What became of the good records, and whether a bad request has made the server fail."""
        of_rounds = [each.delivered for rounds in self.rounds.values() for each in rounds]
        problems = [f"flood: {what}" for delivered in of_rounds for what in delivered.problems]
        failures = Counter[str]()
        for each in self.floods:
            failures.update({kind: count for (kind, status), count in each.answers.items() if status.startswith("5")})
        problems += [f"flood: {count} times {kind} was answered as a failure" for kind, count in failures.items()]
        return Checked(sum(delivered.records * READERS for delivered in of_rounds), problems)

    def as_json(self) -> list[dict[str, Any]]:
        """Return everything that was measured."""
        found: list[dict[str, Any]] = [
            {
                "target": weather,
                **self._series(weather).as_json(),
                "serverCpu": self._cpu(weather),
                "rssMb": self._rss(weather),
            }
            for weather in self.rounds
        ]
        answers = Counter[str]()
        for each in self.floods:
            answers.update({f"{kind}: {status}": count for (kind, status), count in each.answers.items()})
        return [
            *found,
            {"target": "bad requests", "perSecond": [each.rate for each in self.floods], "answers": answers},
        ]

    def _row(self, weather: str, rate: str, statuses: str) -> Row:
        series, cpu = self._series(weather), statistics.median(self._cpu(weather))
        rss = statistics.median(self._rss(weather))
        return (weather, f"{series.p50:.3f}", f"{series.p99:.3f}", f"{cpu:.1%}", f"{rss:.1f}", rate, statuses)

    def _series(self, weather: str) -> Series:
        return Series([each.delivered.samples for each in self.rounds[weather]])

    def _cpu(self, weather: str) -> list[float]:
        return [each.delivered.cpu for each in self.rounds[weather]]

    def _rss(self, weather: str) -> list[float]:
        return [each.rss for each in self.rounds[weather]]


def measure(bench: Bench) -> Flood:
    """Carry good traffic, first calm and then flooded; in each round a fresh process, which has no free memory to reuse."""
    stage, rounds, progress = bench.stage, bench.scale.flood_rounds, bench.progress
    progress.expect(2 * rounds)
    found = Flood()
    stage.start()
    stage.create([_session(weather, number) for weather in (CALM, FLOODED) for number in range(rounds)])
    with spawned(flood) as pipe:
        for number in range(rounds):
            stage.restart()
            for weather in (CALM, FLOODED):
                progress.step(f"flood: round {number + 1} of {rounds}: {weather}")
                if weather == FLOODED:
                    pipe.send(Order(port=stage.port, token=stage.tokens[_session(CALM, number)]))
                found.rounds.setdefault(weather, []).append(_weather(bench, weather, number))
            pipe.send("enough")
            found.floods.append(pipe.recv())
    stage.stop()
    return found


def _weather(bench: Bench, weather: str, number: int) -> Weathered:
    stage, session = bench.stage, _session(weather, number)
    delivered = bench.client.measure(
        Broadcast(
            port=stage.port,
            writer_port=stage.port,
            pid=stage.pid,
            writer=Writer(name="flood", session=session, token=KEY, io=requests.OUT),
            subscription=requests.subscribe(session, stage.tokens[session]),
            readers=READERS,
            rate=RATE,
            warm_up_seconds=bench.scale.fan_out_warm_up_seconds,
            seconds=bench.scale.flood_seconds,
            counts_streams=False,
        )
    )
    return Weathered(delivered=delivered, rss=usage.memory(stage.pid).rss / _KB_PER_MB)


def _session(weather: str, number: int) -> str:
    return f"flood-{weather}-{number}"
