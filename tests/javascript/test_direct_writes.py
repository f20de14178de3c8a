"""The official JavaScript client writes ``out`` by itself: each scenario of ``direct_writes*.test.mjs`` is one test here.

It writes to our own data plane, over the logs of two profiles and over TLS, or straight into S2: then the server's channels are in an S2 server of
its own, which a file may have killed and started again, and everything else is in its folder. Nobody writes by itself to a server of
ours that is being restarted: that takes longer than the client's patience with a connection that is refused (three attempts).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from harness.backends import environment_of, opened_backends
from harness.node import CLIENTS
from harness.s2 import S2Server, new_basin
from harness.scenarios import Report, open_server, parameters, restart_of, run_file
from harness.tls import make_certificate
from sessions_adapters.profiles import EMBEDDED, POSTGRES

S2: Final = "s2"
TLS: Final = "tls"
WRITING: Final = [CLIENTS / "direct_writes.test.mjs", CLIENTS / "direct_writes_agent.test.mjs"]
RESTARTING: Final = CLIENTS / "direct_writes_restart.test.mjs"

pytestmark = [pytest.mark.needs_node, pytest.mark.slow]
_ON_S2: Final = pytest.param(S2, marks=pytest.mark.needs_s2)
on_every_log = pytest.mark.parametrize(
    "log", [EMBEDDED, TLS, pytest.param(POSTGRES, marks=pytest.mark.needs_postgres), _ON_S2]
)
on_s2 = pytest.mark.parametrize("log", [_ON_S2])


@pytest.fixture(scope="session")
def report_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Report]:
    """Tells how the scenarios of a file ended on a log; runs it when first asked."""

    @functools.cache
    def report(log: str, file: Path) -> Report:
        folder = tmp_path_factory.mktemp(file.name.partition(".")[0])
        match log:
            case "s2":
                return _on_s2(file, folder)
            case "tls":
                return _over_tls(file, folder)
            case profile:
                return _on_our_own(profile, file, folder)

    return report


def _on_our_own(profile: str, file: Path, folder: Path) -> Report:
    with opened_backends(profile, folder / "data") as backends, open_server(folder, environment_of(backends)) as server:
        return run_file(file, server, folder / "outcomes", restart_of(server))


def _over_tls(file: Path, folder: Path) -> Report:
    certificate, key = make_certificate(folder)
    with open_server(folder, {"SESSIONS_TLS_CERT": str(certificate), "SESSIONS_TLS_KEY": str(key)}) as server:
        trust = {"NODE_EXTRA_CA_CERTS": str(certificate)}
        return run_file(file, server, folder / "outcomes", restart_of(server), trust)


def _on_s2(file: Path, folder: Path) -> Report:
    with S2Server(folder, root=folder / "s2") as s2:
        channels = {"SESSIONS_S2_URL": f"s2://{new_basin()}?endpoint={s2.endpoint}"}
        with open_server(folder, channels) as server:
            orders = restart_of(server) | {"restart S2": functools.partial(_restart, s2)}
            return run_file(file, server, folder / "outcomes", orders, {"DIRECT_WRITES": "unchecked"})


def _restart(s2: S2Server) -> None:
    s2.kill()
    s2.start()


@on_every_log
@pytest.mark.parametrize(("file", "name"), list(parameters(WRITING)))
def test_scenario(report_of: Callable[[str, Path], Report], file: Path, name: str, log: str) -> None:
    report_of(log, file).check(name)


@on_s2
@pytest.mark.parametrize(("file", "name"), list(parameters([RESTARTING])))
def test_scenario_with_servers_that_are_killed(
    report_of: Callable[[str, Path], Report], file: Path, name: str, log: str
) -> None:
    report_of(log, file).check(name)


@on_every_log
@pytest.mark.parametrize("file", WRITING, ids=lambda file: file.name)
def test_exactly_the_listed_scenarios_ran_and_node_ended_in_time(
    report_of: Callable[[str, Path], Report], file: Path, log: str
) -> None:
    report_of(log, file).check_all_of(file)


@on_s2
def test_the_same_holds_where_servers_are_killed(report_of: Callable[[str, Path], Report], log: str) -> None:
    report_of(log, RESTARTING).check_all_of(RESTARTING)
