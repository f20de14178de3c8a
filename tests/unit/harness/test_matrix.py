"""The table of what ran on what."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from harness.matrix import ADAPTERS, describe, find_name, port_of


def report(test_id: str, outcome: str = "passed", when: str = "call") -> pytest.TestReport:
    return pytest.TestReport(test_id, ("", None, ""), {}, outcome, None, when)  # type: ignore[arg-type]


def test_parameters_name_the_adapter() -> None:
    assert find_name("tests/contract/test_x.py::test_a[postgres-feed-1]", ADAPTERS) == "postgres-feed"
    assert find_name("tests/contract/test_x.py::test_a[memory-trio-0]", ADAPTERS) == "memory"
    assert find_name("tests/contract/test_x.py::test_postgres", ADAPTERS) is None


def test_a_suite_is_about_the_port_that_its_name_begins_with() -> None:
    assert port_of(PurePath("tests/contract/test_channel_log_reading.py")) == "channel_log"
    assert port_of(PurePath("tests/contract/test_session_index_model.py")) == "session_index"


def test_only_what_passed_counts_as_passed() -> None:
    run = [
        report("tests/contract/test_backlog.py::test_a[sqlite]"),
        report("tests/contract/test_backlog.py::test_a[sqlite]", when="setup"),
        report("tests/contract/test_backlog.py::test_b[sqlite]", "failed"),
        report("tests/contract/test_backlog.py::test_c[postgres]", "failed", "setup"),
        report("tests/contract/test_backlog.py::test_d[postgres]", "skipped", "setup"),
        report("tests/http/test_waits.py::test_e[scale-1]"),
    ]
    assert describe(run) == [
        "| port | sqlite | postgres |",
        "| --- | --- | --- |",
        "| backlog | 1 of 2 | 0 of 1 |",
        "",
        "| suite | scale |",
        "| --- | --- |",
        "| tests/http | 1 |",
        "",
        "skipped: 1",
    ]
