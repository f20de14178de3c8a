"""What the length of a list of sessions costs: the same page of a short and of a long one, by turns."""

from __future__ import annotations

from typing import Any, Final

import attrs

from benchmarks.bench import Bench
from benchmarks.figures import Comparison, Figure, Series, p50_ratios
from benchmarks.lists import in_clickhouse, in_postgres
from benchmarks.page_reads import KINDS, PAGE, PageReads, Place
from benchmarks.processes import load_client
from benchmarks.section import NOTHING_CHECKED, Row
from sessions_adapters.profiles import POSTGRES

AIM: Final = 1.5


@attrs.frozen
class Pages:
    """What was found.

    Attributes:
        index: What the lists are read from.
        counts: Sessions of each list, shortest first.
        series: By page and length of the list.
    """

    index: str
    counts: tuple[int, ...]
    series: dict[Place, Series] = attrs.field(factory=dict)
    checked = NOTHING_CHECKED

    head = (f"{PAGE} sessions of a list", "sessions", "p50 ms", "p99 ms")

    @property
    def rows(self) -> list[Row]:
        """One for each page and length."""
        return [
            (
                f"{self.index}, {kind}",
                str(count),
                f"{self.series[kind, count].p50:.3f}",
                f"{self.series[kind, count].p99:.3f}",
            )
            for kind in KINDS
            for count in self.counts
        ]

    @property
    def figures(self) -> list[Figure]:
        """What matters."""
        short, *longer = self.counts
        return [
            Figure(
                name=f"{self.index}, {kind}: p50 at {long} sessions / at {short}",
                values=p50_ratios(self.series[kind, long], self.series[kind, short]),
                aim=AIM,
            )
            for kind in KINDS
            for long in longer
        ]

    @property
    def comparisons(self) -> list[Comparison]:
        """Each page, by the length of the list."""
        return [self._comparison(kind) for kind in KINDS]

    def as_json(self) -> list[dict[str, Any]]:
        """Return everything that was measured."""
        return [
            {"index": self.index, "page": kind, "sessions": count, **series.as_json()}
            for (kind, count), series in self.series.items()
        ]

    def _comparison(self, kind: str) -> Comparison:
        p50 = {f"{count} sessions": self.series[kind, count].p50 for count in self.counts}
        limit = AIM * next(iter(p50.values()))
        return Comparison(name=f"{self.index}, {kind}: p50", unit="ms", values=p50, yardsticks=1, limit=limit)


def measure(bench: Bench) -> Pages:
    """Fill lists, and read them through the adapter of the profile's index, in a process of its own."""
    counts = bench.scale.session_counts
    bench.progress.expect(1)
    bench.progress.step(f"pages: filling lists of {', '.join(map(str, counts))} sessions, and reading them")
    found = Pages("Postgres" if bench.profile == POSTGRES else "ClickHouse", counts)
    with load_client() as client:  # ClickHouse's engine brings its threads along
        for of_round in client.measure(_job(bench)):
            for place, samples in of_round.items():
                found.series.setdefault(place, Series()).rounds.append(samples)
    return found


def _job(bench: Bench) -> PageReads:
    scale, url = bench.scale, bench.stage.backends.database_url
    assert url is not None
    is_postgres = bench.profile == POSTGRES
    return PageReads(
        open=in_postgres if is_postgres else in_clickhouse,
        url=url if is_postgres else f"chdb://{bench.folder / 'clickhouse'}",
        counts=scale.session_counts,
        rounds=scale.page_rounds,
        samples=scale.samples,
    )
