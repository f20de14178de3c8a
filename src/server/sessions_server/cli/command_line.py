"""Reading the command line, and turning what its commands raise into messages and exit codes."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from sessions_core.errors import NotFoundError, SessionsError
from sessions_server.cli import doctor, environments, listing, migrate, replicate, send, serve, show, tail, worker
from sessions_server.cli.remote import RefusedError
from sessions_server.cli.streams import tell

EXIT_FAILED: Final = 1
EXIT_NOT_FOUND: Final = 3
DESCRIPTION: Final = "Durable, task-bound, bidirectional streams that outlive any single run."
EPILOG: Final = """examples:
  sessions serve
  export SESSIONS_KEY=tr_dev_...        # the key that serve has printed
  sessions send hello "slow and steady" --create echo --wait
  sessions tail hello
  sessions show hello

Results go to standard output, everything else to standard error.
Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 not found, 130 interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="sessions",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sessions {version('sessions')}")
    parser.set_defaults(take_late=lambda _, left: left)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (serve, worker, replicate, migrate, doctor, environments, listing, show, send, tail):
        module.add_parser(commands)
    return parser


def run(argv: Sequence[str] | None) -> int:
    """Do what *argv* says; return the exit code (0 fine, 1 failed, 3 not found). Errors of ours have been told.

    Raises:
        SystemExit: Wrong usage (2), or no more than help was asked for (0).
    """
    arguments = _parse(build_parser(), argv)
    logging.getLogger().addHandler(logging.NullHandler())  # what drivers say about a failure is not for the terminal
    try:
        return int(arguments.command(arguments))
    except SessionsError as error:
        tell(str(error))
        return EXIT_NOT_FOUND if _is_not_found(error) else EXIT_FAILED


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    arguments, left = parser.parse_known_args(argv)
    if left and (left := arguments.take_late(arguments, left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    return arguments


def _is_not_found(error: SessionsError) -> bool:
    if isinstance(error, RefusedError):
        return error.is_not_found
    return isinstance(error, NotFoundError)
