"""Adding commands to the command line, all in one form."""

from __future__ import annotations

import argparse
from typing import Any


def add_subparser(
    commands: Any, name: str, *, summary: str, examples: str, description: str | None = None
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: The subparsers to add it to.
        name: The word that chooses it.
        summary: What it does, for the list of commands.
        examples: Shown at the end of its help, in the lines in which they are given.
        description: Shown at the beginning of its help; the summary as a sentence if there is none.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description or f"{summary[:1].upper()}{summary[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser
