"""A picture of what was found: bars side by side, as SVG, which needs no library to be drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.figures import Comparison
from benchmarks.tables import number

WIDTH: Final = 860
LABEL: Final = 250
BAR: Final = 460
"""Length of the longest bar of a group; groups have scales of their own."""
ROW: Final = 18
HEADING: Final = 26
MARGIN: Final = 16
STYLE: Final = """
  text { font: 12px system-ui, sans-serif; fill: #222 }
  .name { font-weight: 600 }
  .yardstick { fill: #a9b4c2 }
  .server { fill: #3b76c4 }
  .limit { stroke: #c0392b; stroke-width: 2; stroke-dasharray: 4 2 }
  rect.paper { fill: #fff }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd }
    rect.paper { fill: #1b1e23 }
    .yardstick { fill: #6b7785 }
  }
"""
LEGEND: Final = "grey: yardsticks; blue: what is measured; dashed: its aim. Each group has a scale of its own."


def draw(title: str, comparisons: Sequence[Comparison]) -> str:
    """Return a picture of *comparisons*, one group of bars for each."""
    body, top = list[str](), MARGIN + 2 * HEADING
    for comparison in comparisons:
        body += _group(comparison, top)
        top += HEADING + ROW * len(comparison.values) + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}">',
            f"<style>{STYLE}</style>",
            f'<rect class="paper" width="{WIDTH}" height="{top}"/>',
            _text(MARGIN, MARGIN + ROW, title, "name"),
            _text(MARGIN, MARGIN + 2 * ROW, LEGEND),
            *body,
            "</svg>\n",
        ]
    )


def _group(comparison: Comparison, top: int) -> Iterator[str]:
    longest = max(*comparison.values.values(), comparison.limit or 0.0, 1e-9)
    yield _text(MARGIN, top + ROW - 4, f"{comparison.name}, {comparison.unit}", "name")
    top += HEADING
    for row, (target, value) in enumerate(comparison.values.items()):
        y, length = top + row * ROW, BAR * value / longest
        kind = "yardstick" if row < comparison.yardsticks else "server"
        yield _text(MARGIN, y + 12, target)
        yield f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{length:.1f}" height="{ROW - 4}"/>'
        yield _text(LABEL + length + 6, y + 12, number(value))
    if comparison.limit is not None:
        x, bottom = LABEL + BAR * comparison.limit / longest, top + ROW * len(comparison.values)
        yield f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4}" y2="{bottom}"/>'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
