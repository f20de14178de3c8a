"""The official JavaScript clients against a real server: each scenario of the ``*.test.mjs`` files is one test here, or in test_direct_writes.py.

So is each block of the how-to page that is marked ``<!-- executed: tests/javascript -->``. Every file runs once per profile, in one Node process, against a server of its own that the file may have killed and started again.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from harness.backends import AT_LENGTH, environment_of, opened_backends
from harness.node import CLIENTS, NODE
from harness.scenarios import Report, environment_for, open_server, parameters, restart_of, run_file
from harness.server import KEY, ServerProcess

FILES: Final = [file for file in sorted(CLIENTS.glob("*.test.mjs")) if not file.name.startswith("direct_writes")]
PAGE: Final = CLIENTS.parents[1] / "docs" / "how-to" / "use-the-javascript-clients.md"
BLOCK: Final = re.compile(r"<!-- executed: tests/javascript -->\n```js\n(.*?)```", re.DOTALL)

pytestmark = [pytest.mark.needs_node, pytest.mark.slow]
profiles = pytest.mark.parametrize("profile", AT_LENGTH)


@pytest.fixture(scope="session")
def report_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Report]:
    """Tells how the scenarios of a file ended on a profile; runs it when first asked."""

    @functools.cache
    def report(profile: str, file: Path) -> Report:
        folder = tmp_path_factory.mktemp(file.name.partition(".")[0])
        with (
            opened_backends(profile, folder / "data") as backends,
            open_server(folder, environment_of(backends)) as server,
        ):
            return run_file(file, server, folder / "outcomes", restart_of(server))

    return report


@profiles
@pytest.mark.parametrize(("file", "name"), list(parameters(FILES)))
def test_scenario(report_of: Callable[[str, Path], Report], file: Path, name: str, profile: str) -> None:
    report_of(profile, file).check(name)


@profiles
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_exactly_the_listed_scenarios_ran_and_node_ended_in_time(
    report_of: Callable[[str, Path], Report], file: Path, profile: str
) -> None:
    report_of(profile, file).check_all_of(file)


@pytest.fixture(scope="module")
def among_old_connections(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """How the scenarios of chats end where connections and subscriptions last for a second."""
    folder = tmp_path_factory.mktemp("old")
    with open_server(folder, {"SESSIONS_CONNECTION_AGE": "1"}) as server:
        return run_file(CLIENTS / "chat.test.mjs", server, folder / "outcomes", restart_of(server))


@pytest.mark.parametrize(
    "name",
    [
        "a conversation of two turns",
        "an answer grows as it is written",
        "stop keeps what was written, and the next answer is whole",
    ],
)
def test_an_answer_that_outlives_its_connection_is_whole(among_old_connections: Report, name: str) -> None:
    among_old_connections.check(name)


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
    done = subprocess.run(
        command, cwd=CLIENTS, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
