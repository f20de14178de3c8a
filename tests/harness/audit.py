"""``make audit``: ask whether any version that ``constraints.txt`` pins has a known vulnerability.

pip-audit asks. What it says needs telling apart: it ends in the same way whether it has found something or got no answer, and where an
index does not have the pages that it reads, it finds nothing wrong with anything.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import attrs

PINS: Final = Path(__file__).parents[2] / "constraints.txt"
SERVICES: Final = ("osv", "pypi")
"""Who is asked: the first one that answers."""
ACCEPTED: Final[dict[str, str]] = {}
"""Advisories that are known and lived with, each with the reason."""
CLEAN, FOUND, UNASKED = 0, 1, 2
PATIENCE_SECONDS: Final = 300

Run = Callable[[str, Path], tuple[str, str]]
"""Asks a service about a file of pins; returns what pip-audit wrote to standard output and to standard error."""


class NoAnswerError(Exception):
    """A service could not be asked; says why."""


@attrs.frozen
class Report:
    """What a service knows.

    Attributes:
        audited: How many pins it was asked about and knows.
        found: A line for each vulnerability.
        skipped: A line for each pin that it does not know.
    """

    audited: int
    found: tuple[str, ...]
    skipped: tuple[str, ...]


def read_report(output: str, errors: str) -> Report:
    """Read what pip-audit wrote.

    Raises:
        NoAnswerError: It is no report, or one about nothing.
    """
    try:
        told: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        raise NoAnswerError(_last_line(errors)) from None
    skipped = tuple(each["skip_reason"] for each in told if "skip_reason" in each)
    audited = [each for each in told if "vulns" in each]
    if not audited:
        raise NoAnswerError(skipped[0] if skipped else "it was asked about nothing")
    found = (_line(each, vulnerability) for each in audited for vulnerability in each["vulns"])
    return Report(len(audited), tuple(found), skipped)


def _line(package: dict[str, Any], vulnerability: dict[str, Any]) -> str:
    remedy = ", ".join(vulnerability["fix_versions"]) or "no version yet"
    names = " ".join([vulnerability["id"], *vulnerability.get("aliases", ())])
    return f"{package['name']} {package['version']}: {names}; fixed in {remedy}"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def ask(pins: Path, run: Run, services: Iterable[str] = SERVICES) -> tuple[int, list[str]]:
    """Ask the services in turn until one answers; return how it ended, and what to print.

    Each is asked about one pin first: an index without these pages would be asked a hundred times in vain.
    """
    lines = []
    for service in services:
        try:
            _try_one(service, pins, run)
            report = read_report(*run(service, pins))
        except NoAnswerError as error:
            lines.append(f"could not ask {service}: {error}")
        else:
            return (FOUND if report.found else CLEAN), [*lines, *_told(service, report)]
    return UNASKED, [*lines, f"NOT AUDITED: nobody could be asked about the pins of {pins.name}"]


def _try_one(service: str, pins: Path, run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "one.txt"
        one.write_text(next(line for line in pins.read_text().splitlines() if "==" in line and ";" not in line) + "\n")
        read_report(*run(service, one))


def _told(service: str, report: Report) -> list[str]:
    lines = [f"not audited: {reason}" for reason in report.skipped]
    lines += [f"accepted: {name}: {reason}" for name, reason in ACCEPTED.items()]
    lines += [f"VULNERABLE: {line}" for line in report.found]
    return [*lines, f"{report.audited} pins audited with {service}: {len(report.found)} known vulnerabilities"]


def run_pip_audit(service: str, pins: Path) -> tuple[str, str]:
    """Ask with pip-audit, which makes no environment and resolves nothing: every pin counts as it is.

    Raises:
        NoAnswerError: It took too long.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(pins), "--no-deps", "--disable-pip"]
    command += ["--progress-spinner", "off", "--format", "json", "--vulnerability-service", service]
    command += [word for name in ACCEPTED for word in ("--ignore-vuln", name)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        raise NoAnswerError(f"no answer in {PATIENCE_SECONDS} seconds") from None
    return done.stdout, done.stderr


def main(arguments: list[str] | None = None, run: Run = run_pip_audit) -> int:
    """Print what is known; return 1 if there is a vulnerability, and 2 if nobody could be asked although that was required."""
    parser = argparse.ArgumentParser(prog="make audit", description=main.__doc__)
    parser.add_argument("--required", action="store_true", help="fail where nobody can be asked, too")
    required = parser.parse_args(arguments).required
    outcome, lines = ask(PINS, run)
    print("\n".join(lines))
    return CLEAN if outcome == UNASKED and not required else outcome


if __name__ == "__main__":
    sys.exit(main())
