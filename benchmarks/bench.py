"""What every part of the benchmarks works with."""

from __future__ import annotations

from pathlib import Path

import attrs

from benchmarks.processes import LoadClient
from benchmarks.progress import Progress
from benchmarks.scale import Scale
from benchmarks.stage import Stage


@attrs.frozen(kw_only=True)
class Bench:
    """One run of the benchmarks.

    Attributes:
        folder: For data of the yardsticks; the server's lies below it, too.
        readers: How many connections this machine lets one process hold for idle readers.
    """

    stage: Stage
    client: LoadClient
    folder: Path
    scale: Scale
    progress: Progress
    readers: int

    @property
    def profile(self) -> str:
        """Which adapters the server has."""
        return self.stage.backends.profile
