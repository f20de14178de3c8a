"""The official JavaScript client writes ``out`` straight into S2: each scenario of ``direct_writes*.test.mjs`` is one test here.

The server's channels are in an S2 server of its own, which a file may have killed and started again; everything else is in its
folder. So these scenarios need no database, and say nothing about profiles.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from harness.node import CLIENTS
from harness.s2 import S2Server, new_basin
from harness.scenarios import Report, open_server, parameters, restart_of, run_file

FILES: Final = sorted(CLIENTS.glob("direct_writes*.test.mjs"))

pytestmark = [pytest.mark.needs_node, pytest.mark.needs_s2, pytest.mark.slow]


@pytest.fixture(scope="session")
def report_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Report]:
    """Tells how the scenarios of a file ended; runs it when first asked."""

    @functools.cache
    def report(file: Path) -> Report:
        folder = tmp_path_factory.mktemp(file.name.partition(".")[0])
        with S2Server(folder, root=folder / "s2") as s2:
            channels = {"SESSIONS_S2_URL": f"s2://{new_basin()}?endpoint={s2.endpoint}"}
            with open_server(folder, channels) as server:
                orders = restart_of(server) | {"restart S2": functools.partial(restart, s2)}
                return run_file(file, server, folder / "outcomes", orders)

    return report


def restart(s2: S2Server) -> None:
    s2.kill()
    s2.start()


@pytest.mark.parametrize(("file", "name"), list(parameters(FILES)))
def test_scenario(report_of: Callable[[Path], Report], file: Path, name: str) -> None:
    report_of(file).check(name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_exactly_the_listed_scenarios_ran_and_node_ended_in_time(
    report_of: Callable[[Path], Report], file: Path
) -> None:
    report_of(file).check_all_of(file)
