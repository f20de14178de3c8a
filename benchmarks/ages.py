"""What the age of a channel costs: the same requests to young and to old ones, by turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs

from benchmarks import requests
from benchmarks.bench import Bench
from benchmarks.caller import IsWhole, has_body, has_ended, has_records
from benchmarks.figures import Comparison, Figure, Series, p50_ratios
from benchmarks.fill import fill
from benchmarks.load import Exchanges, Writer
from benchmarks.section import NOTHING_CHECKED, Row
from benchmarks.targets import in_turn

AIM: Final = 1.5
BEHIND: Final = 10
"""How many records before the tail a reader comes back."""


@attrs.frozen
class Ages:
    """What was found.

    Attributes:
        sizes: Records of each channel, by session, youngest first.
        series: By kind of request and session.
    """

    sizes: dict[str, int]
    series: dict[tuple[str, str], Series] = attrs.field(factory=dict)
    checked = NOTHING_CHECKED

    head = ("by age", "records", "p50 ms", "p99 ms")

    @property
    def rows(self) -> list[Row]:
        """One for each kind of request and age."""
        return [
            (kind.name, str(size), f"{self.series[kind.name, name].p50:.3f}", f"{self.series[kind.name, name].p99:.3f}")
            for kind in KINDS
            for name, size in self.sizes.items()
        ]

    @property
    def figures(self) -> list[Figure]:
        """What matters."""
        young, *older = self.sizes
        return [
            Figure(
                name=f"{kind.name}: p50 at {self.sizes[old]} records / at {self.sizes[young]}",
                values=p50_ratios(self.series[kind.name, old], self.series[kind.name, young]),
                aim=AIM,
            )
            for kind in KINDS
            for old in older
        ]

    @property
    def comparisons(self) -> list[Comparison]:
        """Each kind of request, by age."""
        return [self._comparison(kind.name) for kind in KINDS]

    def as_json(self) -> list[dict[str, Any]]:
        """Return everything that was measured."""
        return [
            {"request": kind, "records": self.sizes[name], **series.as_json()}
            for (kind, name), series in self.series.items()
        ]

    def _comparison(self, kind: str) -> Comparison:
        p50 = {f"{size} records": self.series[kind, name].p50 for name, size in self.sizes.items()}
        return Comparison(
            name=f"{kind}, by age: p50", unit="ms", values=p50, yardsticks=1, limit=AIM * next(iter(p50.values()))
        )


@attrs.frozen
class _Subject:
    """A session of a certain age, in a certain round."""

    session: str
    token: str
    size: int
    round: str

    def appends(self, count: int) -> list[bytes]:
        return Writer(name=self.round, session=self.session, token=self.token).requests(count)

    def drains(self, count: int) -> list[bytes]:
        return [requests.records(self.session, self.token, self._behind)] * count

    def subscriptions(self, count: int) -> list[bytes]:
        return [requests.subscribe(self.session, self.token, self._behind)] * count

    def probes(self, count: int) -> list[bytes]:
        return [requests.subscribe(self.session, self.token, self.size - 1, peek_settled=True)] * count

    @property
    def _behind(self) -> int:
        return self.size - 1 - BEHIND


@attrs.frozen
class Kind:
    """A request whose cost should not depend on age."""

    name: str
    requests: Callable[[_Subject, int], list[bytes]]
    is_whole: IsWhole
    reconnect: bool = False


KINDS: Final = (
    Kind("append", _Subject.appends, has_body),
    Kind("resume by records", _Subject.drains, has_body),
    Kind("resume by SSE, first frame", _Subject.subscriptions, has_records, reconnect=True),
    Kind("settled probe, whole answer", _Subject.probes, has_ended, reconnect=True),
)


def measure(bench: Bench) -> Ages:
    """Fill channels, restart the server so that nothing is remembered, and measure."""
    stage, rounds = bench.stage, bench.scale.rounds
    bench.progress.expect(2 * rounds)
    found = Ages({f"aged-{size}": size for size in bench.scale.sizes})
    stage.start()
    stage.create(list(found.sizes))
    stage.stop()
    asyncio.run(fill(stage.data, stage.environment_id, found.sizes, bench.progress))
    stage.start()
    _round(Ages(found.sizes), bench, "warm", list(found.sizes))
    for number in range(rounds):
        bench.progress.step(f"ages: round {number + 1} of {rounds}")
        _round(found, bench, f"round-{number}", in_turn(list(found.sizes), number))
    stage.stop()
    return found


def _round(found: Ages, bench: Bench, label: str, order: Sequence[str]) -> None:
    stage = bench.stage
    subjects = [_Subject(name, stage.tokens[name], found.sizes[name], label) for name in order]
    for kind in KINDS:
        scripts = [kind.requests(subject, bench.scale.samples) for subject in subjects]
        exchanges = Exchanges(stage.port, tuple(_by_turns(scripts)), kind.is_whole, kind.reconnect)
        samples = bench.client.measure(exchanges)
        for place, name in enumerate(order):
            found.series.setdefault((kind.name, name), Series()).rounds.append(samples.part(place, len(order)))


def _by_turns(scripts: Sequence[Sequence[bytes]]) -> Iterator[bytes]:
    for requests_of_a_turn in zip(*scripts, strict=True):
        yield from requests_of_a_turn
