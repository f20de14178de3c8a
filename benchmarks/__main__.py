"""Run the benchmarks: ``python benchmarks --help``."""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests")]

from benchmarks.cli import main  # noqa: E402 - found by the lines above

if __name__ == "__main__":
    sys.exit(main())
