"""What is told about a run, to people and to programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from benchmarks.ages import KINDS, Ages
from benchmarks.appends import CROWDS, TARGETS, Appends
from benchmarks.chains import Chains
from benchmarks.figures import Figure
from benchmarks.machine import Machine


@attrs.frozen(kw_only=True)
class Report:
    """Everything that a run has found."""

    machine: Machine
    append: Appends
    age: Ages
    chains: Chains
    seconds: float

    @property
    def figures(self) -> list[Figure]:
        """What matters."""
        return [*self.append.figures, *self.age.figures]


def as_text(found: Report) -> str:
    """Return tables for people."""
    parts = [
        [f"{found.machine}; took {found.seconds:.0f} s"],
        _table(
            ("append", "writers", "p50 ms", "p99 ms", "requests/s", "unrest", "client busy"), _append_rows(found.append)
        ),
        _table(("by age", "records", "p50 ms", "p99 ms"), _age_rows(found.age)),
        _table(("figure", "median", "middle half", "aim", "met"), map(_figure_row, found.figures)),
        [str(found.chains)],
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def as_json(found: Report) -> dict[str, Any]:
    """Return the same for programs."""
    appends = [
        {"target": target, "writers": writers, **series.as_json()}
        for (target, writers), series in found.append.series.items()
    ]
    ages = [
        {"request": kind, "records": found.age.sizes[name], **series.as_json()}
        for (kind, name), series in found.age.series.items()
    ]
    return {
        "machine": attrs.asdict(found.machine),
        "seconds": found.seconds,
        "appends": appends,
        "ages": ages,
        "figures": [figure.as_json() for figure in found.figures],
        "chains": attrs.asdict(found.chains),
    }


def _append_rows(found: Appends) -> Iterator[Sequence[str]]:
    for sessions in CROWDS:
        for target in TARGETS:
            series = found.series[target, len(sessions)]
            shares = (f"{series.unrest:.0%}", f"{series.busy:.0%}")
            yield (target, str(len(sessions)), f"{series.p50:.3f}", f"{series.p99:.3f}", f"{series.rate:.0f}", *shares)


def _age_rows(found: Ages) -> Iterator[Sequence[str]]:
    for kind in KINDS:
        for name, size in found.sizes.items():
            series = found.series[kind.name, name]
            yield (kind.name, str(size), f"{series.p50:.3f}", f"{series.p99:.3f}")


def _figure_row(figure: Figure) -> Sequence[str]:
    low, high = figure.middle
    spread = f"{low:.2f} to {high:.2f}"
    aim = f"{figure.side} {figure.aim}"
    return (figure.name, f"{figure.value:.2f}", spread, aim, "yes" if figure.is_met else "no")


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> list[str]:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return ["  ".join(_cells(line, widths)) for line in lines]


def _cells(line: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """Align the first column left and the others, which hold numbers, right."""
    yield line[0].ljust(widths[0])
    for cell, width in zip(line[1:], widths[1:], strict=True):
        yield cell.rjust(width)
