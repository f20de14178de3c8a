"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import machine, plot, report, suite, systems, usage
from benchmarks.bench import Bench
from benchmarks.processes import load_client
from benchmarks.progress import Progress
from benchmarks.report import Report
from benchmarks.scale import FULL, SHORT, Scale
from benchmarks.stage import Stage
from harness.services import CannotStartError
from sessions_adapters.profiles import EMBEDDED

MISSING: Final = 2
INTERRUPTED: Final = 130
EXAMPLES: Final = """examples:
  make bench
  make bench ARGS='--short --json bench.json'
  make bench ARGS='--only fan-out --compare bench.json --plot bench.svg'
  make bench PROFILE=postgres
  python benchmarks --data /mnt/other-disk
"""


def main() -> int:
    """Run the benchmarks and print what they found.

    Returns:
        0; 1 if a record was lost, doubled, reordered or changed; 2 if a system that the profile needs cannot be started; 130
        after an interrupt. A missed aim changes nothing.
    """
    arguments = _parse()
    scale = SHORT if arguments.short else FULL
    before = None if arguments.compare is None else json.loads(arguments.compare.read_text(encoding="utf-8"))
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.data) as folder:
            found = _measure(arguments.profile, Path(folder), scale, arguments.only)
    except KeyboardInterrupt:
        return INTERRUPTED
    except CannotStartError as error:
        print(error, file=sys.stderr)
        return MISSING
    print(report.as_text(found))
    if before is not None:
        print(f"\n{report.as_changes(before, found)}")
    _write(found, arguments.json, arguments.plot)
    return 1 if found.problems else 0


def _measure(profile: str, folder: Path, scale: Scale, names: list[str]) -> Report:
    started, date = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    readers = usage.readers_allowed(scale.readers)
    if readers < scale.readers:
        print(f"only {readers} idle readers: this machine lets a process open no more files", file=sys.stderr)
    progress = Progress(sys.stderr, suite.total(profile, names))
    with progress, load_client() as client, systems.started(profile, folder) as backends, Stage(backends) as stage:
        place = machine.describe(folder)
        bench = Bench(stage=stage, client=client, folder=folder, scale=scale, progress=progress, readers=readers)
        sections = suite.run(bench, names)
    seconds = time.monotonic() - started
    return Report(profile=profile, machine=place, date=date, commit=_commit(), sections=sections, seconds=seconds)


def _write(found: Report, json_path: Path | None, plot_path: Path | None) -> None:
    if json_path is not None:
        json_path.write_text(json.dumps(report.as_json(found), indent=2) + "\n", encoding="utf-8")
    if plot_path is not None:
        title = f"Sessions, profile {found.profile}, {found.date}, {found.machine}"
        plot_path.write_text(plot.draw(title, found.comparisons), encoding="utf-8")


def _commit() -> str | None:
    """Return the commit that this code is, with a ``+`` if it was changed since; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks",
        description="Measure what sessions cost, beside yardsticks of the same run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--profile",
        choices=systems.PROFILES,
        default=EMBEDDED,
        help="what the server keeps its data in (default: %(default)s)",
    )
    parser.add_argument("--short", action="store_true", help="few rounds and small channels; figures are rough")
    parser.add_argument(
        "--only",
        action="append",
        metavar="PART",
        choices=suite.NAMES,
        help="; ".join(f"{profile}: {', '.join(parts)}" for profile, parts in suite.PARTS.items()) + "; repeatable",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it into FILE, as SVG")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="show what changed since FILE, written by --json")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", default=_disk(), help="put data below DIR (default: %(default)s)"
    )
    arguments = parser.parse_args()
    parts = suite.PARTS[arguments.profile]
    arguments.only = arguments.only or list(parts)
    if others := [name for name in arguments.only if name not in parts]:
        parser.error(f"the profile {arguments.profile} has no part {others[0]}: it has {', '.join(parts)}")
    return arguments


def _disk() -> Path:
    """Return a folder for temporary data that lies on a disk, as far as one can tell: ``/tmp`` often does not."""
    folder = Path("/var/tmp")
    return folder if folder.is_dir() else Path(tempfile.gettempdir())
