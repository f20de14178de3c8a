"""The parts of the benchmarks of each profile, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs

from benchmarks import ages, appends, fan_out, first_output, flood, memory, pages, streaming, wake_ups
from benchmarks.bench import Bench
from benchmarks.section import Section
from sessions_adapters.profiles import EMBEDDED, POSTGRES, SCALE


@attrs.frozen
class Part:
    """One part.

    Attributes:
        share: About how long it takes, compared with the others.
    """

    measure: Callable[[Bench], Section]
    share: float


PARTS: Final[dict[str, dict[str, Part]]] = {
    EMBEDDED: {
        "appends": Part(appends.measure, 15),
        "fan-out": Part(fan_out.measure, 45),
        "first-output": Part(first_output.measure, 8),
        "direct-writes": Part(streaming.measure, 10),
        "memory": Part(memory.measure, 12),
        "flood": Part(flood.measure, 12),
        "ages": Part(ages.measure, 20),
    },
    POSTGRES: {
        "appends": Part(appends.measure, 30),
        "direct-writes": Part(streaming.measure, 10),
        "wake-ups": Part(wake_ups.measure, 35),
        "pages": Part(pages.measure, 35),
    },
    SCALE: {
        "appends": Part(appends.measure, 60),
        "pages": Part(pages.measure, 40),
    },
}
NAMES: Final = tuple(dict.fromkeys(name for parts in PARTS.values() for name in parts))


def run(bench: Bench, names: Sequence[str]) -> dict[str, Section]:
    """Measure the named parts."""
    sections = dict[str, Section]()
    for name, part in PARTS[bench.profile].items():
        if name in names:
            bench.progress.begin(part.share)
            bench.progress.say(name)
            sections[name] = part.measure(bench)
    return sections


def total(profile: str, names: Sequence[str]) -> float:
    """Return the sum of the parts' shares."""
    return sum(PARTS[profile][name].share for name in names)
