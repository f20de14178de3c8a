"""What the actions of ``sessions env`` have in common: they open the store of environments, and print rows."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs

from sessions_adapters.profiles import Backends, open_environments
from sessions_core.ports.environment_store import EnvironmentStore
from sessions_server.cli.backends import backends_of
from sessions_server.cli.parsers import add_subparser
from sessions_server.cli.text import table, to_json
from sessions_server.config import Config

Row = dict[str, Any]
Act = Callable[[EnvironmentStore, argparse.Namespace], Awaitable[list[Row]]]


def add_action(actions: Any, words: str, summary: str, act: Act, *, examples: str) -> argparse.ArgumentParser:
    """Add an action, which prints its rows.

    Args:
        actions: The subparsers to add it to.
        words: What is typed after ``sessions env``; the last word chooses the action.
        summary: What it does.
        act: Does it, and returns what is to be printed.
        examples: Of the whole command; the action's own are picked out.
    """
    own = "examples:\n" + "".join(f"{line}\n" for line in examples.splitlines() if f" env {words}" in line)
    parser = add_subparser(actions, words.rpartition(" ")[2], summary=summary, examples=own)
    parser.add_argument("--data", type=Path, metavar="DIR", help="the server's data directory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=lambda arguments: show(perform(act, arguments), arguments))
    return parser


def chosen_backends(arguments: argparse.Namespace) -> Backends:
    """Return where the environments are: as for a server, with ``--data`` before the variable."""
    config = Config.load()
    return backends_of(config if arguments.data is None else attrs.evolve(config, data=arguments.data))


def perform(act: Act, arguments: argparse.Namespace, *, creates: bool = False) -> list[Row]:
    """Open the store and return what *act* says; if it *creates*, also where there is no data directory yet."""

    async def run() -> list[Row]:
        async with open_environments(chosen_backends(arguments), create=creates) as store:
            return await act(store, arguments)

    return asyncio.run(run())


def show(rows: list[Row], arguments: argparse.Namespace, *, has_head: bool = False) -> int:
    """Print *rows* as a table, with a head where that is wanted, or as JSON where that is asked for; return 0."""
    if arguments.json:
        print(to_json(rows, indent=2))
        return 0
    head = [list(rows[0])] if rows and has_head else []
    for line in table([*head, *([_cell(value) for value in row.values()] for row in rows)]):
        print(line)
    return 0


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value) or "-"
    return "-" if value in (None, "") else str(value)
