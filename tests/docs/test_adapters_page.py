"""docs/reference/adapters.md tells which suites and adapters there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from contract.adapters import PORTS, TECHNOLOGIES

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/reference/adapters.md").read_text()
ROW: Final = re.compile(r"^\| `(\w+)` \| (.+) \| (.+) \|$", re.MULTILINE)
FILE: Final = re.compile(r"`(tests/[^`]+)`")
HELPERS: Final = {"indexed_store", "changing_store", "stored_runs", "is_readable_at_rest", "limiter_time"}
"""What suites take besides ports."""

TOLD: Final = {port: (suites, adapters) for port, suites, adapters in ROW.findall(PAGE)}


def test_every_port_is_told() -> None:
    told = set(TOLD)
    assert {name for name in PORTS - HELPERS if any(name in each.ports for each in TECHNOLOGIES)} <= told
    assert told <= PORTS


@pytest.mark.parametrize("port", TOLD)
def test_the_adapters_of_a_port_are_told(port: str) -> None:
    assert TOLD[port][1].split(", ") == [each.name for each in TECHNOLOGIES if port in each.ports]


def test_every_suite_is_told_and_every_file_is_there() -> None:
    told = {name for suites, _ in TOLD.values() for name in re.findall(r"`(\w+)`", suites)}
    assert told == {path.stem for path in (ROOT / "tests/contract").glob("test_*.py")}
    assert [name for name in FILE.findall(PAGE) if not (ROOT / name).exists()] == []
