"""``sessions migrate``: bring the database up to date."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, Final

from sessions_server.cli.parsers import add_subparser
from sessions_server.config import Config

DESCRIPTION: Final = """Bring the database that SESSIONS_DATABASE_URL names up to date.

Run it before servers of a new version start. Of several at once one works and the others wait; servers that run need not
be stopped. The embedded profile does this by itself.
"""
EXAMPLES: Final = """examples:
  sessions migrate
"""


def add_parser(commands: Any) -> None:
    """Add ``migrate`` to the command line."""
    summary = "bring the database of the postgres profile up to date"
    parser = add_subparser(commands, "migrate", summary=summary, examples=EXAMPLES, description=DESCRIPTION)
    parser.set_defaults(command=run)


def run(_: argparse.Namespace) -> int:
    """Apply what is missing; return 0."""
    from sessions_adapters.profiles import migrate_database

    config = Config.load()
    for name in asyncio.run(migrate_database(config.profile, url=config.database_url)):
        print(f"applied {name}")
    print("the database is up to date")
    return 0
