"""Figures, tables, pictures and progress of the benchmarks."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from benchmarks import plot, report
from benchmarks.figures import Aim, Comparison, Figure, quartiles, ratios
from benchmarks.machine import Machine
from benchmarks.progress import Progress
from benchmarks.report import Report
from benchmarks.samples import Samples
from benchmarks.section import Checked, Row
from benchmarks.tables import number, table
from benchmarks.usage import Memory

MACHINE = Machine(cores=2, python="3", aiohttp="3", sqlite="3", sync_ms=1.0)
SVG = "{http://www.w3.org/2000/svg}"


@attrs.define
class Findings:
    """A section that has found what it was given."""

    values: dict[str, float]
    checked: Checked = attrs.field(factory=Checked)
    head: Row = ("what", "ms")

    @property
    def rows(self) -> Sequence[Row]:
        return [(target, number(value)) for target, value in self.values.items()]

    @property
    def figures(self) -> Sequence[Figure]:
        ratio = self.values["server"] / self.values["bare"]
        return [Figure(name="p50 / bare", values=[ratio], aim=2.0)]

    @property
    def comparisons(self) -> Sequence[Comparison]:
        return [Comparison(name="p50", unit="ms", values=self.values, yardsticks=1, limit=2 * self.values["bare"])]

    def as_json(self) -> list[dict[str, Any]]:
        return [dict(self.values)]


def report_of(bare: float, server: float, **more: Any) -> Report:
    section = Findings({"bare": bare, "server": server}, **more)
    return Report(
        profile="embedded", machine=MACHINE, date="2026-01-01", commit="abc", sections={"part": section}, seconds=1.0
    )


@pytest.mark.parametrize(
    ("values", "side", "is_met"),
    [
        ([1.0, 2.0, 9.0], Aim.AT_MOST, True),
        ([1.0, 2.1, 9.0], Aim.AT_MOST, False),
        ([1.0, 2.0, 9.0], Aim.AT_LEAST, True),
        ([1.0, 1.9, 9.0], Aim.AT_LEAST, False),
        ([2.0], Aim.AT_MOST, True),
    ],
)
def test_a_figure_meets_its_aim_with_the_median_of_its_rounds(values: list[float], side: Aim, is_met: bool) -> None:
    assert Figure(name="f", values=values, aim=2.0, side=side).is_met is is_met


def test_a_single_round_has_no_spread() -> None:
    assert quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert quartiles([1.0, 2.0, 3.0]) == (1.5, 2.0, 2.5)


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


@pytest.mark.parametrize(("percent", "milliseconds"), [(1, 1.0), (50, 50.0), (99, 99.0), (100, 100.0)])
def test_a_percentile_is_one_of_the_latencies(percent: int, milliseconds: float) -> None:
    latencies = [n / 1000 for n in range(100, 0, -1)]
    samples = Samples(latencies=latencies, seconds=1.0, sent=[100], busy=0.0)
    assert samples.percentile(percent) == pytest.approx(milliseconds)


def test_what_a_reader_costs_is_its_share_of_the_growth() -> None:
    before, after = Memory(rss=100, pss=90, uss=80), Memory(rss=300, pss=190, uss=180)
    assert after.per_reader(before, 10) == Memory(rss=20, pss=10, uss=10)


def test_columns_of_a_table_are_aligned() -> None:
    assert table(("name", "ms"), [("a", "1"), ("longer", "10.5")]) == ["name      ms", "a          1", "longer  10.5"]


def test_a_report_names_what_was_lost_and_says_so_in_json() -> None:
    broken = report_of(1.0, 3.0, checked=Checked(5, ["seq 3 is missing"]))
    assert "seq 3 is missing" in report.as_text(broken)
    assert report.as_json(broken)["records"] == {"checked": 5, "problems": ["seq 3 is missing"]}
    assert "records intact: 0" in report.as_text(report_of(1.0, 1.0))


def test_changes_since_an_earlier_report_are_shown_for_what_both_have() -> None:
    before = report.as_json(report_of(1.0, 8.0))
    before["comparisons"].append({"name": "gone", "unit": "ms", "values": {"bare": 1.0}})
    lines = report.as_changes(before, report_of(1.0, 2.0)).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["p50,", "ms:", "bare", "1", "1", "1.00"],
        ["p50,", "ms:", "server", "8", "2", "0.25"],
        ["p50", "/", "bare", "8", "2", "0.25"],
    ]


def test_a_picture_has_a_bar_for_each_target_as_long_as_its_value() -> None:
    values = {"bare": 1.0, "a <b> & c": 2.0, "server": 4.0}
    root = ET.fromstring(
        plot.draw("title & more", [Comparison(name="p50", unit="ms", values=values, yardsticks=2, limit=2.0)])
    )
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("class") != "paper"]
    assert [float(bar.get("width", "")) / plot.BAR for bar in bars] == [0.25, 0.5, 1.0]
    assert [bar.get("class") for bar in bars] == ["yardstick", "yardstick", "server"]
    [line] = root.iter(f"{SVG}line")
    assert float(line.get("x1", "")) == plot.LABEL + plot.BAR / 2
    assert {"title & more", "a <b> & c"} <= {text.text for text in root.iter(f"{SVG}text")}


class Terminal(io.StringIO):
    """Somebody who watches."""

    def isatty(self) -> bool:
        return True


def test_progress_rises_from_nothing_to_everything() -> None:
    progress = Progress(Terminal(), 4.0)
    done = [progress.done]
    for share, steps in ((1.0, 2), (3.0, 3)):
        progress.begin(share)
        progress.expect(steps)
        for _ in range(steps):
            done.append(progress.done)
            progress.step("…")
    done.append(progress.done)
    assert done == pytest.approx([0.0, 0.0, 0.125, 0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize(("out", "is_shown"), [(Terminal(), True), (io.StringIO(), False)])
def test_progress_is_shown_to_a_terminal_only(out: io.StringIO, is_shown: bool) -> None:
    with Progress(out, 1.0) as progress:
        progress.begin(1.0)
        progress.step("a step")
    assert ("a step" in out.getvalue()) is is_shown
