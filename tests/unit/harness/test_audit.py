"""What pip-audit says, told apart: clean, vulnerable, or nobody asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.audit import CLEAN, FOUND, UNASKED, NoAnswerError, ask, main, read_report

UNRESOLVED = "Traceback (most recent call last):\n  ...\nConnectionError: Failed to resolve 'api.test'"


def clean(name: str) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": []}


def vulnerable(name: str, *fixed: str) -> dict[str, Any]:
    found = {"id": "PYSEC-1", "fix_versions": list(fixed), "aliases": ["CVE-1"], "description": "bad"}
    return {"name": name, "version": "1.0", "vulns": [found]}


def skipped(name: str) -> dict[str, Any]:
    return {"name": name, "skip_reason": f"Dependency not found and could not be audited: {name} (1.0)"}


def report(*dependencies: dict[str, Any]) -> tuple[str, str]:
    return json.dumps({"dependencies": list(dependencies), "fixes": []}), "No known vulnerabilities found"


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    path = tmp_path / "constraints.txt"
    path.write_text("a==1.0 ; sys_platform == 'win32'\nb==1.0\nc==1.0\n")
    return path


def test_what_is_clean_is_said_with_how_much_was_asked(pins: Path) -> None:
    outcome, lines = ask(pins, lambda *_: report(clean("b"), clean("c")))
    assert (outcome, lines) == (CLEAN, ["2 pins audited with osv: 0 known vulnerabilities"])


def test_a_vulnerability_fails_and_says_what_helps(pins: Path) -> None:
    outcome, lines = ask(pins, lambda *_: report(clean("b"), vulnerable("c", "1.1", "2.0")))
    assert outcome == FOUND
    assert lines[0] == "VULNERABLE: c 1.0: PYSEC-1 CVE-1; fixed in 1.1, 2.0"
    assert "no version yet" in ask(pins, lambda *_: report(vulnerable("c")))[1][0]


def test_an_index_without_such_pages_has_not_said_that_all_is_well(pins: Path) -> None:
    asked: list[str] = []

    def run(_: str, file: Path) -> tuple[str, str]:
        asked.append(file.read_text())
        return report(skipped("b"))

    outcome, lines = ask(pins, run, ["pypi"])
    assert outcome == UNASKED
    assert lines[0].startswith("could not ask pypi: Dependency not found")
    assert lines[-1] == "NOT AUDITED: nobody could be asked about the pins of constraints.txt"
    assert asked == ["b==1.0\n"], "and it is asked about one alone"


def test_the_next_service_is_asked_where_one_cannot_be(pins: Path) -> None:
    def run(service: str, _: Path) -> tuple[str, str]:
        return ("", UNRESOLVED) if service == "osv" else report(clean("b"), skipped("c"))

    outcome, lines = ask(pins, run)
    assert outcome == CLEAN
    assert lines == [
        "could not ask osv: ConnectionError: Failed to resolve 'api.test'",
        "not audited: Dependency not found and could not be audited: c (1.0)",
        "1 pins audited with pypi: 0 known vulnerabilities",
    ]


@pytest.mark.parametrize("output", ["", "no JSON", "[]", "{}", '{"dependencies": []}'])
def test_what_is_no_report_is_no_answer(output: str) -> None:
    with pytest.raises(NoAnswerError):
        read_report(output, "")


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["--required"], 2)])
def test_that_nobody_could_be_asked_is_never_silent_and_fails_where_that_is_wanted(
    arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments, lambda *_: ("", UNRESOLVED)) == status
    assert "NOT AUDITED" in capsys.readouterr().out


def test_a_vulnerability_fails_whatever_is_required() -> None:
    assert main([], lambda *_: report(vulnerable("c"))) == 1
