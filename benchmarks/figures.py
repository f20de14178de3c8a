"""A figure: what was found, and what it ought to be."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import attrs

from benchmarks.samples import Samples


class Aim(StrEnum):
    """On which side of its aim a figure ought to be."""

    AT_MOST = "<="
    AT_LEAST = ">="


@attrs.frozen(kw_only=True)
class Figure:
    """A ratio of two measurements, taken once in each round.

    Attributes:
        name: What is divided by what.
        values: One for each round.
        aim: What the median ought to be.
        side: On which side of it.
    """

    name: str
    values: Sequence[float]
    aim: float
    side: Aim = Aim.AT_MOST

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def middle(self) -> tuple[float, float]:
        """Between what the middle half of the rounds lies."""
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def is_met(self) -> bool:
        """Whether the median is where it ought to be."""
        return self.value <= self.aim if self.side is Aim.AT_MOST else self.value >= self.aim

    def as_json(self) -> dict[str, Any]:
        """Return everything known about it."""
        aim = f"{self.side} {self.aim}"
        return {"name": self.name, "value": self.value, "rounds": list(self.values), "aim": aim, "met": self.is_met}


@attrs.frozen
class Series:
    """The same measurement, once in each round."""

    rounds: list[Samples] = attrs.field(factory=list)

    @property
    def p50(self) -> float:
        """Milliseconds."""
        return statistics.median(samples.p50 for samples in self.rounds)

    @property
    def p99(self) -> float:
        """Milliseconds."""
        return statistics.median(samples.p99 for samples in self.rounds)

    @property
    def rate(self) -> float:
        """Requests per second."""
        return statistics.median(samples.rate for samples in self.rounds)

    @property
    def unrest(self) -> float:
        """How far the middle half of the rounds is apart, as a share of the median: how noisy the machine was."""
        rates = [samples.rate for samples in self.rounds]
        low, median, high = statistics.quantiles(rates, n=4, method="inclusive")
        return (high - low) / median

    @property
    def busy(self) -> float:
        """The load client's share of a processor."""
        return statistics.median(samples.busy for samples in self.rounds)

    def as_json(self) -> dict[str, float]:
        """Return the medians."""
        count = sum(len(samples.latencies) for samples in self.rounds)
        return {
            "requests": count,
            "p50Ms": self.p50,
            "p99Ms": self.p99,
            "requestsPerSecond": self.rate,
            "unrest": self.unrest,
            "clientBusy": self.busy,
        }


def p50_ratios(above: Series, below: Series) -> list[float]:
    """Divide medians, round by round."""
    return [a.p50 / b.p50 for a, b in zip(above.rounds, below.rounds, strict=True)]


def rate_ratios(above: Series, below: Series) -> list[float]:
    """Divide throughputs, round by round."""
    return [a.rate / b.rate for a, b in zip(above.rounds, below.rounds, strict=True)]
