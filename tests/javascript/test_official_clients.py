"""The official JavaScript clients against a real server: each scenario of the ``*.test.mjs`` files is one test here.

So is each block of the how-to page that is marked ``<!-- executed: tests/javascript -->``. Every file runs once, in one Node process, against a server of its own that the file may have killed and started again.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest

from harness.node import NODE
from harness.server import KEY, ServerProcess

HERE: Final = Path(__file__).parent
FILES: Final = sorted(HERE.glob("*.test.mjs"))
SCENARIO: Final = re.compile(r'^  scenario\("([^"]+)"', re.MULTILINE)
RESTART: Final = "restart the server\n"
FILE_SECONDS: Final = 50
PAGE: Final = HERE.parents[1] / "docs" / "how-to" / "use-the-javascript-clients.md"
BLOCK: Final = re.compile(r"<!-- executed: tests/javascript -->\n```js\n(.*?)```", re.DOTALL)
FOREIGN: Final = ("TRIGGER_", "VERCEL_")
"""Variables that the SDK reads. A developer may have some of them for a server that is not ours."""

pytestmark = [pytest.mark.needs_node, pytest.mark.slow]


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


def scenarios_of(file: Path) -> list[str]:
    return SCENARIO.findall(file.read_text())


def scenarios() -> Iterator[object]:
    for file in FILES:
        for name in scenarios_of(file):
            yield pytest.param(file, name, id=f"{file.name.partition('.')[0]}: {name}")


@pytest.fixture(scope="session")
def report_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Report]:
    """Tells how the scenarios of a file ended; runs it when first asked."""

    @functools.cache
    def report(file: Path) -> Report:
        folder = tmp_path_factory.mktemp(file.name.partition(".")[0])
        with ServerProcess(folder / "data", agents="agents:agents", environment={"PYTHONPATH": str(HERE)}) as server:
            lines = folder / "outcomes"
            return Report.read(run_file(file, server, lines), lines)

    return report


def environment_for(server: ServerProcess) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**mine, "TRIGGER_API_URL": server.address, "TRIGGER_SECRET_KEY": KEY}


def run_file(file: Path, server: ServerProcess, lines: Path) -> int:
    """Run a file's scenarios, restarting the server whenever they ask for it; return Node's exit code."""
    command = [NODE.get(), "--test-reporter=./reporter.mjs", f"--test-reporter-destination={lines}", file.name]
    with subprocess.Popen(
        ["timeout", "--kill-after=2", str(FILE_SECONDS), *command],
        cwd=HERE,
        env=environment_for(server),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            if line == RESTART:
                server.kill()
                server.start()
                process.stdin.write("restarted\n")
                process.stdin.flush()
            else:
                print(line, end="")
    return process.returncode


@pytest.mark.parametrize(("file", "name"), list(scenarios()))
def test_scenario(report_of: Callable[[Path], Report], file: Path, name: str) -> None:
    outcome = report_of(file).outcomes.get(name)
    assert outcome is not None, "it has not ended; what Node said is in the output of the file's first test"
    if outcome.error is not None:
        pytest.fail(outcome.error, pytrace=False)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_exactly_the_listed_scenarios_ran_and_node_ended_in_time(
    report_of: Callable[[Path], Report], file: Path
) -> None:
    report = report_of(file)
    assert sorted(report.outcomes) == sorted(scenarios_of(file))
    assert report.exit_code == any(outcome.error for outcome in report.outcomes.values())


def blocks() -> list[str]:
    found = BLOCK.findall(PAGE.read_text())
    assert found, "no block is marked: has the mark changed?"
    return found


@pytest.fixture(scope="module")
def followed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The one server of somebody who follows the how-to page from its beginning to its end."""
    with ServerProcess(tmp_path_factory.mktemp("page") / "data") as server:
        yield server


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block.splitlines()[0])
def test_blocks_of_the_how_to_page_run(followed_server: ServerProcess, block: str) -> None:
    script = block.replace("http://127.0.0.1:8787", followed_server.address).replace("tr_dev_...", KEY)
    command = [NODE.get(), "--input-type=module", "--eval", script]
    environment = environment_for(followed_server)
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
