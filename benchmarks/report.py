"""What is told about a run, to people and to programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from benchmarks.figures import Comparison, Figure
from benchmarks.machine import Machine
from benchmarks.section import Section
from benchmarks.tables import number, table


@attrs.frozen(kw_only=True)
class Report:
    """Everything that a run has found.

    Attributes:
        profile: What the server kept its data in.
        date: When it began, in ISO form.
        commit: Of the code that was measured; ends in ``+`` if it was changed since; None if nobody knows.
        sections: By name.
    """

    profile: str
    machine: Machine
    date: str
    commit: str | None
    sections: Mapping[str, Section]
    seconds: float

    @property
    def figures(self) -> list[Figure]:
        """What matters."""
        return [figure for section in self.sections.values() for figure in section.figures]

    @property
    def comparisons(self) -> list[Comparison]:
        """What is shown side by side."""
        return [comparison for section in self.sections.values() for comparison in section.comparisons]

    @property
    def problems(self) -> list[str]:
        """Records that were lost, doubled, reordered or changed."""
        return [problem for section in self.sections.values() for problem in section.checked.problems]

    @property
    def records(self) -> int:
        """How many records were looked at."""
        return sum(section.checked.records for section in self.sections.values())


def as_text(found: Report) -> str:
    """Return tables for people."""
    commit = f", commit {found.commit}" if found.commit else ""
    parts = [[f"profile {found.profile}, {found.date}{commit}", f"{found.machine}; took {found.seconds:.0f} s"]]
    parts += [table(section.head, section.rows) for section in found.sections.values()]
    parts += [table(("figure", "median", "middle half", "aim", "met"), map(_figure_row, found.figures))]
    return "\n\n".join("\n".join(part) for part in [*parts, _records(found)])


def as_json(found: Report) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "profile": found.profile,
        "date": found.date,
        "commit": found.commit,
        "machine": attrs.asdict(found.machine),
        "seconds": found.seconds,
        "sections": {name: section.as_json() for name, section in found.sections.items()},
        "comparisons": [attrs.asdict(comparison) for comparison in found.comparisons],
        "figures": [figure.as_json() for figure in found.figures],
        "records": {"checked": found.records, "problems": found.problems},
    }


def as_changes(before: Mapping[str, Any], found: Report) -> str:
    """Return a table of what *before*, a report as JSON, and *found* have in common."""
    rows = list(_changes(before, as_json(found)))
    return "\n".join(table((f"since {before['date']}", "before", "after", "after / before"), rows))


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    old, new = _quantities(before), _quantities(after)
    for name in [name for name in new if name in old]:
        change = f"{new[name] / old[name]:.2f}" if old[name] else "-"
        yield (name, number(old[name]), number(new[name]), change)


def _quantities(report: Mapping[str, Any]) -> dict[str, float]:
    """Return every quantity of every target, and every figure, by a name that says it all."""
    found = {
        f"{comparison['name']}, {comparison['unit']}: {target}": value
        for comparison in report["comparisons"]
        for target, value in comparison["values"].items()
    }
    return found | {figure["name"]: figure["value"] for figure in report["figures"]}


def _records(found: Report) -> list[str]:
    if found.problems:
        return [f"RECORDS BROKEN ({len(found.problems)} problems):", *found.problems[:20]]
    return [f"records intact: {found.records} looked at"]


def _figure_row(figure: Figure) -> Sequence[str]:
    low, high = figure.middle
    unit = f" {figure.unit}" if figure.unit else ""
    met = "yes" if figure.is_met else "no"
    spread, aim = f"{number(low)} to {number(high)}", f"{figure.side} {number(figure.aim)}{unit}"
    return (figure.name, f"{number(figure.value)}{unit}", spread, aim, met)
