"""What ran on what: a table of passed tests by port and adapter, and of the whole server by suite and profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Final

import attrs
import pytest

from contract.adapters import PORTS, TECHNOLOGIES
from sessions_adapters.profiles import EMBEDDED, MEMORY, POSTGRES, SCALE

ADAPTERS: Final = [each.name for each in TECHNOLOGIES]
PROFILES: Final = [MEMORY, EMBEDDED, POSTGRES, SCALE]
SUITES: Final = ("http", "javascript")
NOTHING: Final = "-"

Cell = tuple[str, str]
"""A row's name and a column's."""


@attrs.define
class Matrix:
    """Counts the tests of some columns."""

    columns: Sequence[str]
    passed: Counter[Cell] = attrs.field(init=False, factory=Counter)
    run: Counter[Cell] = attrs.field(init=False, factory=Counter)

    def add(self, row: str, test_id: str, *, is_passed: bool) -> None:
        """Count a test that ran in the column that its parameters name; one that names none is left out."""
        column = find_name(test_id, self.columns)
        if column is not None:
            self.run[row, column] += 1
            self.passed[row, column] += is_passed

    def lines(self, corner: str) -> list[str]:
        """Return it as a table in Markdown, with columns and rows that have something in them."""
        rows = sorted({row for row, _ in self.run})
        columns = [column for column in self.columns if any(self.run[row, column] for row in rows)]
        table = [[corner, *columns], ["---"] * (len(columns) + 1)]
        table += [[row, *(self._text((row, column)) for column in columns)] for row in rows]
        return [f"| {' | '.join(cells)} |" for cells in table] if rows else []

    def _text(self, cell: Cell) -> str:
        passed, run = self.passed[cell], self.run[cell]
        if not run:
            return NOTHING
        return str(run) if passed == run else f"{passed} of {run}"


def find_name(test_id: str, names: Iterable[str]) -> str | None:
    """Return the longest of *names* among the parameters in *test_id*, or None."""
    parameters = test_id.partition("[")[2].removesuffix("]")
    found = [name for name in names if f"-{name}-" in f"-{parameters}-"]
    return max(found, key=len, default=None)


def port_of(path: PurePath) -> str:
    """Return the port that a suite of ``tests/contract`` is about: its file's name begins with it."""
    about = path.stem.removeprefix("test_")
    return max((port for port in PORTS if about.startswith(port)), key=len, default=about)


def describe(reports: Iterable[pytest.TestReport]) -> list[str]:
    """Return both tables for *reports* of a run."""
    ports, suites, skipped = Matrix(ADAPTERS), Matrix(PROFILES), 0
    for report in reports:
        skipped += report.skipped
        if report.when != "call" and not report.failed:
            continue
        path = PurePath(report.nodeid.partition("::")[0])
        if path.parts[1] == "contract":
            ports.add(port_of(path), report.nodeid, is_passed=report.passed)
        elif path.parts[1] in SUITES:
            suites.add("/".join(path.parts[:2]), report.nodeid, is_passed=report.passed)
    return [*ports.lines("port"), "", *suites.lines("suite"), "", f"skipped: {skipped}"]
