"""Fuzzes a server on a profile for as long as one likes, and prints how many requests went where and what was found.

By hand: ``PYTHONPATH=tests python -m harness.fuzz --profile postgres --examples 500 --bytes 20000``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from harness.backends import environment_of, opened_backends
from harness.fuzz_bytes import Hurler
from harness.fuzz_judge import Judge
from harness.fuzz_play import UNLIMITED, Player, memory, peak_memory
from harness.fuzz_requests import make_requests
from harness.server import KEY, ServerProcess
from harness.services import RUN
from sessions_adapters.profiles import EMBEDDED, MEMORY, POSTGRES, SCALE
from sessions_server.openapi import make_document
from sessions_server.table import ROUTES

MIB = 1_048_576


def fuzz(server: ServerProcess, *, examples: int, edges: int, count: int, number: int) -> list[str]:
    """Fuzz *server*; return what was found, and print the rest."""
    document = json.loads(make_document(ROUTES))
    before = memory(server.pid)
    findings = Player(server.address, KEY, Judge(document)).play(
        make_requests(document, examples=examples, edges=edges, number=number)
    )
    print(*findings.lines(), sep="\n")
    hurled = Hurler(server.port, KEY, number).hurl(count)
    print(*hurled.lines(), sep="\n")
    after, peak = memory(server.pid), peak_memory(server.pid)
    print(f"memory: {before / MIB:.0f} MiB before, {after / MIB:.0f} MiB after, {peak / MIB:.0f} MiB when it was most")
    logged = [line for line in server.output if "Traceback" in line or "ERROR" in line]
    return [*findings.problems, *hurled.problems, *logged]


def main() -> int:
    """Fuzz from the command line; 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=(MEMORY, EMBEDDED, POSTGRES, SCALE), default=EMBEDDED)
    parser.add_argument(
        "--examples", type=int, default=200, help="of each route, that fit the document, and that do not"
    )
    parser.add_argument("--edges", type=int, default=1000, help="of each route at most, at the edges of the document")
    parser.add_argument("--bytes", type=int, default=5000, dest="count", help="connections with damaged bytes")
    parser.add_argument("--seed", type=int, default=1, dest="number")
    options = vars(parser.parse_args())
    with (
        RUN,
        tempfile.TemporaryDirectory(prefix="sessions-fuzz-", ignore_cleanup_errors=True) as folder,
        opened_backends(options.pop("profile"), Path(folder) / "data") as backends,
        ServerProcess(Path(folder) / "data", environment=environment_of(backends) | UNLIMITED) as server,
    ):
        problems = fuzz(server, **options)
    print(*problems[:60], f"{len(problems)} problems", sep="\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
