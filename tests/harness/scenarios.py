"""Scenarios of the official JavaScript clients: Node runs a ``*.test.mjs`` file, and tells how each of them ended."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
import pytest

from harness.node import CLIENTS, NODE
from harness.server import KEY, ServerProcess

SCENARIO: Final = re.compile(r'^  scenario\("([^"]+)"', re.MULTILINE)
FILE_SECONDS: Final = 50
FOREIGN: Final = ("TRIGGER_", "VERCEL_")
"""Variables that the SDK reads. A developer may have some of them for a server that is not ours."""


@attrs.frozen
class Outcome:
    """How a scenario ended; the error is None if it passed."""

    name: str
    seconds: float
    error: str | None


@attrs.frozen
class Report:
    """What became of a file."""

    exit_code: int
    outcomes: dict[str, Outcome]

    @classmethod
    def read(cls, exit_code: int, lines: Path) -> Report:
        """Read what reporter.mjs wrote."""
        told = [Outcome(**json.loads(line)) for line in lines.read_text().splitlines()] if lines.exists() else []
        return cls(exit_code, {outcome.name: outcome for outcome in told})

    def check(self, name: str) -> None:
        """Fail the test unless the scenario *name* passed."""
        outcome = self.outcomes.get(name)
        assert outcome is not None, "it has not ended; what Node said is in the output of the file's first test"
        if outcome.error is not None:
            pytest.fail(outcome.error, pytrace=False)

    def check_all_of(self, file: Path) -> None:
        """Fail the test unless exactly the scenarios of *file* ran, and Node ended in time."""
        assert sorted(self.outcomes) == sorted(scenarios_of(file))
        assert self.exit_code == any(outcome.error for outcome in self.outcomes.values())


def scenarios_of(file: Path) -> list[str]:
    """Return the names of a file's scenarios."""
    return SCENARIO.findall(file.read_text())


def parameters(files: Iterable[Path]) -> Iterator[object]:
    """Give one parameter for each scenario of *files*."""
    for file in files:
        for name in scenarios_of(file):
            yield pytest.param(file, name, id=f"{file.name.partition('.')[0]}: {name}")


def open_server(folder: Path, environment: Mapping[str, str] | None = None) -> ServerProcess:
    """Make a server with the agents that the scenarios talk to, its data in *folder*."""
    variables = {"PYTHONPATH": str(CLIENTS), **(environment or {})}
    return ServerProcess(folder / "data", agents="agents:agents", environment=variables)


def environment_for(server: ServerProcess) -> dict[str, str]:
    """Return the variables of a Node process that talks to *server*."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**mine, "TRIGGER_API_URL": server.address, "TRIGGER_SECRET_KEY": KEY}


def run_file(
    file: Path,
    server: ServerProcess,
    lines: Path,
    orders: Mapping[str, Callable[[], object]],
    variables: Mapping[str, str] | None = None,
) -> Report:
    """Run a file's scenarios, and carry out what they order.

    Args:
        file: The file.
        server: Runs.
        lines: Where the outcomes are written.
        orders: What is done when Node prints the line that is the key.
        variables: What the scenarios are told beside where the server is.
    """
    command = [NODE.get(), "--test-reporter=./reporter.mjs", f"--test-reporter-destination={lines}", file.name]
    with subprocess.Popen(
        ["timeout", "--kill-after=2", str(FILE_SECONDS), *command],
        cwd=CLIENTS,
        env=environment_for(server) | dict(variables or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            order = orders.get(line.rstrip("\n"))
            if order is None:
                print(line, end="")
                continue
            order()
            process.stdin.write("done\n")
            process.stdin.flush()
    return Report.read(process.returncode, lines)


def restart_of(server: ServerProcess) -> dict[str, Callable[[], object]]:
    """Return the order to kill *server* and start it again."""

    def restart() -> None:
        server.kill()
        server.start()

    return {"restart the server": restart}
