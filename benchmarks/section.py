"""What a part of the benchmarks has found, in the form in which it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import attrs

from benchmarks.figures import Comparison, Figure

Row = Sequence[str]


@attrs.frozen
class Checked:
    """Records that were looked at one by one.

    Attributes:
        records: How many.
        problems: What was lost, doubled, reordered or changed.
    """

    records: int = 0
    problems: Sequence[str] = ()


NOTHING_CHECKED: Final = Checked()


class Section(Protocol):
    """The findings of one part."""

    @property
    def head(self) -> Row:
        """The head of its table."""

    @property
    def rows(self) -> Sequence[Row]:
        """The lines of its table."""

    @property
    def figures(self) -> Sequence[Figure]:
        """What matters."""

    @property
    def comparisons(self) -> Sequence[Comparison]:
        """What is shown side by side."""

    @property
    def checked(self) -> Checked:
        """What became of the records."""

    def as_json(self) -> list[dict[str, Any]]:
        """Return everything that was measured."""
