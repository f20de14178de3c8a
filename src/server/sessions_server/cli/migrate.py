"""``sessions migrate``: bring the database up to date."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, Final

from sessions_core.errors import UnavailableError
from sessions_server.cli.parsers import add_subparser
from sessions_server.cli.streams import tell
from sessions_server.config import Config

EXIT_FAILED: Final = 1
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
    """Apply what is missing; return 0, or 1 if a system does not let it."""
    from sessions_adapters.profiles import migrate, reason
    from sessions_server.cli.backends import backends_of

    try:
        asyncio.run(migrate(backends_of(Config.load()), lambda name: print(f"applied {name}")))
    except UnavailableError as error:
        tell(
            f"the {error.system} could not be brought up to date: {reason(error)}; `sessions doctor` looks at every system"
        )
        return EXIT_FAILED
    print("everything is up to date")
    return 0
