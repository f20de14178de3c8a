"""The parts of the benchmarks, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs

from benchmarks import ages, appends, fan_out, first_output, memory
from benchmarks.bench import Bench
from benchmarks.section import Section


@attrs.frozen
class Part:
    """One part.

    Attributes:
        share: About how long it takes, compared with the others.
    """

    measure: Callable[[Bench], Section]
    share: float


PARTS: Final[dict[str, Part]] = {
    "appends": Part(appends.measure, 15),
    "fan-out": Part(fan_out.measure, 45),
    "first-output": Part(first_output.measure, 8),
    "memory": Part(memory.measure, 12),
    "ages": Part(ages.measure, 20),
}


def run(bench: Bench, names: Sequence[str]) -> dict[str, Section]:
    """Measure the named parts."""
    sections = dict[str, Section]()
    for name, part in PARTS.items():
        if name in names:
            bench.progress.begin(part.share)
            bench.progress.say(name)
            sections[name] = part.measure(bench)
    return sections


def total(names: Sequence[str]) -> float:
    """Return the sum of the parts' shares."""
    return sum(PARTS[name].share for name in names)
