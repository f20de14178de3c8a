"""Reading the command line and turning errors into messages and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from sessions_core.errors import SessionsError
from sessions_server.cli import environments, serve

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="sessions", description="Durable, task-bound, bidirectional streams that outlive any single run."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serve.add_parser(commands)
    environments.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (0 fine, 1 failed, 2 wrong usage, 130 interrupted)."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except SessionsError as error:
        print(f"sessions: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
