"""``sessions migrate``: bring the database up to date."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, Final

from sessions_server.cli.parsers import add_subparser
from sessions_server.config import Config

DESCRIPTION: Final = """Bring the databases that SESSIONS_DATABASE_URL and SESSIONS_CLICKHOUSE_URL name up to date.

Run it before servers of a new version start. Of several at once one works and the others wait; servers that run need not
be stopped. The embedded profile does this by itself.
"""
EXAMPLES: Final = """examples:
  sessions migrate
"""


def add_parser(commands: Any) -> None:
    """Add ``migrate`` to the command line."""
    summary = "bring the databases up to date"
    parser = add_subparser(commands, "migrate", summary=summary, examples=EXAMPLES, description=DESCRIPTION)
    parser.set_defaults(command=run)


def run(_: argparse.Namespace) -> int:
    """Apply what is missing; return 0."""
    from sessions_adapters.profiles import migrate
    from sessions_server.cli.backends import backends_of

    for name in asyncio.run(migrate(backends_of(Config.load()))):
        print(f"applied {name}")
    print("everything is up to date")
    return 0
