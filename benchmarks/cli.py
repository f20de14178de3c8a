"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks import ages, appends, chains, machine, report
from benchmarks.processes import load_client
from benchmarks.progress import Progress
from benchmarks.report import Report
from benchmarks.scale import FULL, SHORT, Scale
from benchmarks.stage import Stage

INTERRUPTED: Final = 130
EXAMPLES: Final = """examples:
  make bench
  make bench ARGS='--short --json bench.json'
  python benchmarks --data /mnt/other-disk
"""


def main() -> int:
    """Run the benchmarks and print what they found.

    Returns:
        0; 1 if a record was lost, doubled or reordered; 130 after an interrupt. Missing an aim changes nothing.
    """
    arguments = _parse()
    scale = SHORT if arguments.short else FULL
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.data) as folder:
            found = _measure(Path(folder), scale, Progress(sys.stderr))
    except KeyboardInterrupt:
        return INTERRUPTED
    print(report.as_text(found))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.as_json(found), indent=2) + "\n", encoding="utf-8")
    return 1 if found.chains.problems else 0


def _measure(folder: Path, scale: Scale, progress: Progress) -> Report:
    started = time.monotonic()
    with progress, load_client() as client, Stage(folder / "server") as stage:
        place = machine.describe(folder)
        append = appends.measure(stage, client, folder, scale, progress)
        age = ages.measure(stage, client, scale, progress)
        progress.say("reading everything back")
        intact = chains.verify(stage, append.acknowledged)
    return Report(machine=place, append=append, age=age, chains=intact, seconds=time.monotonic() - started)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks",
        description="Measure what appends cost, and what the age of a channel costs, beside yardsticks of the same run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--short", action="store_true", help="few rounds and small channels; figures are rough")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured to FILE")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", default=_disk(), help="put data below DIR (default: %(default)s)"
    )
    return parser.parse_args()


def _disk() -> Path:
    """Return a folder for temporary data that lies on a disk, as far as one can tell: ``/tmp`` often does not."""
    folder = Path("/var/tmp")
    return folder if folder.is_dir() else Path(tempfile.gettempdir())
