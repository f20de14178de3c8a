"""Reading the command line and turning errors into messages and exit codes."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from sessions_core.errors import NotFoundError, SessionsError
from sessions_server.cli import doctor, environments, listing, migrate, send, serve, show, tail
from sessions_server.cli.remote import RefusedError
from sessions_server.cli.text import one_line

EXIT_FAILED: Final = 1
EXIT_NOT_FOUND: Final = 3
EXIT_INTERRUPTED: Final = 130
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
    for module in (serve, migrate, doctor, environments, listing, show, send, tail):
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (0 fine, 1 failed, 2 wrong usage, 3 not found, 130 interrupted).

    Whoever reads standard output through a pipe may stop at any time: that is fine, too.
    """
    _write_what_cannot_be_encoded_as_escapes()
    try:
        code = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        _let_go_of_stdout()
        return 0
    return code


def _run(argv: Sequence[str] | None) -> int:
    arguments = _parse(build_parser(), argv)
    try:
        return int(arguments.command(arguments))
    except SessionsError as error:
        print(f"sessions: {one_line(str(error))}", file=sys.stderr)
        return EXIT_NOT_FOUND if _is_not_found(error) else EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    arguments, left = parser.parse_known_args(argv)
    if left and (left := arguments.take_late(arguments, left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    return arguments


def _is_not_found(error: SessionsError) -> bool:
    if isinstance(error, RefusedError):
        return error.is_not_found
    return isinstance(error, NotFoundError)


def _write_what_cannot_be_encoded_as_escapes() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _let_go_of_stdout() -> None:
    """Keep the interpreter from flushing into the broken pipe when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
