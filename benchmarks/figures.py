"""A figure: what was found, and what it ought to be."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
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
    """Something that has an aim: a ratio of two measurements, or a quantity, taken once in each round.

    Attributes:
        name: What is divided by what.
        values: One for each round.
        aim: What the median ought to be.
        side: On which side of it.
        unit: Empty for a ratio.
    """

    name: str
    values: Sequence[float]
    aim: float
    side: Aim = Aim.AT_MOST
    unit: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def middle(self) -> tuple[float, float]:
        """Between what the middle half of the rounds lies."""
        low, _, high = quartiles(self.values)
        return low, high

    @property
    def is_met(self) -> bool:
        """Whether the median is where it ought to be."""
        return self.value <= self.aim if self.side is Aim.AT_MOST else self.value >= self.aim

    def as_json(self) -> dict[str, Any]:
        """Return everything known about it."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "rounds": list(self.values),
            "aim": f"{self.side} {self.aim}",
            "met": self.is_met,
        }


@attrs.frozen(kw_only=True)
class Comparison:
    """The same quantity of several targets, side by side.

    Attributes:
        values: By target, yardsticks first.
        yardsticks: How many of them are yardsticks.
        limit: What the aim makes of the yardstick: the most, or the least, that the last target ought to have.
    """

    name: str
    unit: str
    values: Mapping[str, float]
    yardsticks: int
    limit: float | None = None


@attrs.frozen
class Series:
    """The same measurement, once in each round."""

    rounds: list[Samples] = attrs.field(factory=list)

    @property
    def p50(self) -> float:
        """Milliseconds."""
        return self.median_of(lambda samples: samples.p50)

    @property
    def p99(self) -> float:
        """Milliseconds."""
        return self.median_of(lambda samples: samples.p99)

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.median_of(lambda samples: samples.rate)

    @property
    def unrest(self) -> float:
        """How far the middle half of the rounds is apart, as a share of the median: how noisy the machine was."""
        low, median, high = quartiles([samples.rate for samples in self.rounds])
        return (high - low) / median

    @property
    def busy(self) -> float:
        """The load client's share of a processor."""
        return self.median_of(lambda samples: samples.busy)

    def median_of(self, quantity: Callable[[Samples], float]) -> float:
        """Return the median of the rounds."""
        return statistics.median(map(quantity, self.rounds))

    def as_json(self) -> dict[str, Any]:
        """Return the medians of the rounds."""
        return {
            "requests": sum(len(samples.latencies) for samples in self.rounds),
            "p50Ms": self.p50,
            "p90Ms": self.median_of(lambda samples: samples.percentile(90)),
            "p99Ms": self.p99,
            "maxMs": self.median_of(lambda samples: samples.percentile(100)),
            "p50MsOfRounds": [samples.p50 for samples in self.rounds],
            "requestsPerSecond": self.rate,
            "unrest": self.unrest,
            "clientBusy": self.busy,
        }


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return what cuts *values* into four parts; thrice the value if there is but one."""
    if len(values) == 1:
        return (values[0],) * 3
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Divide round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def p50_ratios(above: Series, below: Series) -> list[float]:
    """Divide medians, round by round."""
    return ratios([samples.p50 for samples in above.rounds], [samples.p50 for samples in below.rounds])


def rate_ratios(above: Series, below: Series) -> list[float]:
    """Divide throughputs, round by round."""
    return ratios([samples.rate for samples in above.rounds], [samples.rate for samples in below.rounds])
