"""``sessions doctor``: is everything there that a server with these settings would need?"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import attrs

from sessions_adapters.profiles import Finding, Health, diagnose
from sessions_server.cli.backends import backends_of, find_replication
from sessions_server.cli.parsers import add_subparser
from sessions_server.cli.text import table, to_json
from sessions_server.config import Config, ReplicationVariables

PATIENCE: Final = timedelta(seconds=5)
DESCRIPTION: Final = """Look at every system that the settings name: whether it can be reached, its version, migrations and clock, and
whether the encryption key fits, and how far replication is behind. Changes nothing, and shows no password.

Run it with the same environment variables as the server. The exit code is 1 if there is an error.
"""
EXAMPLES: Final = """examples:
  sessions doctor
  SESSIONS_PROFILE=postgres sessions doctor --json
"""


def add_parser(commands: Any) -> None:
    """Add ``doctor`` to the command line."""
    summary = "check every system that the settings name"
    parser = add_subparser(commands, "doctor", summary=summary, examples=EXAMPLES, description=DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each thing that was looked at; return 1 if there is an error among them, else 0."""
    config = Config.load()
    findings = asyncio.run(
        diagnose(
            backends_of(config),
            replication=find_replication(config, ReplicationVariables.load()),
            processes=config.processes,
            patience=PATIENCE,
        )
    )
    _show(findings, as_json=arguments.json)
    return int(any(finding.health is Health.ERROR for finding in findings))


def _show(findings: Sequence[Finding], *, as_json: bool) -> None:
    rows = [attrs.asdict(finding) for finding in findings]
    if as_json:
        print(to_json(rows, indent=2))
        return
    for line in table([list(row.values()) for row in rows]):
        print(line)
