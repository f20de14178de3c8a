"""``sessions env``: environments and their root keys. Works beside a running server, which sees changes in a second."""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import attrs

from sessions_adapters.profiles import open_environments
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.ids import EnvironmentId
from sessions_core.ports.environment_store import EnvironmentStore
from sessions_server.cli.backends import backends_of
from sessions_server.cli.keys import new_environment, new_root_key, parse_root_key
from sessions_server.cli.parsers import add_subparser
from sessions_server.cli.text import table, to_json
from sessions_server.config import Config

GRACE_HOURS: Final = 24
LONGEST_GRACE_HOURS: Final = 24 * 365
EXAMPLES: Final = """examples:
  sessions env create --type PRODUCTION --project shop
  sessions env list --show-keys --json
  sessions env create --key tr_dev_mine00000000000000000000
  sessions env rotate-key env_… --grace-hours 24
"""
_TYPES: Final = {kind.value.lower(): kind for kind in EnvironmentType}


def add_parser(commands: Any) -> None:
    """Add ``env`` to the command line."""
    parser = add_subparser(
        commands, "env", summary="make, list and rotate environments and their keys", examples=EXAMPLES
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = _action(actions, "create", "make an environment and print its root key", _create)
    create.add_argument(
        "--type", type=_type, metavar="TYPE", default=EnvironmentType.DEVELOPMENT, help="default: DEVELOPMENT"
    )
    create.add_argument("--organization", default="default", help="id of the organization (default: default)")
    create.add_argument("--project", default="default", help="id of the project (default: default)")
    create.add_argument("--key", help="use this root key instead of a fresh one")
    listing = _action(actions, "list", "list all environments", _list)
    listing.add_argument("--show-keys", action="store_true", help="show the current root keys, too")
    rotate = _action(actions, "rotate-key", "make a new root key; the old one works for a while", _rotate)
    rotate.add_argument("environment", metavar="ID", help="id of the environment")
    rotate.add_argument(
        "--grace-hours",
        type=_hours,
        default=GRACE_HOURS,
        metavar="HOURS",
        help=f"how long the old key works (default: {GRACE_HOURS})",
    )


def _type(word: str) -> EnvironmentType:
    try:
        return _TYPES[word.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(EnvironmentType)}") from None


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 <= hours <= LONGEST_GRACE_HOURS:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to {LONGEST_GRACE_HOURS}")
    return hours


Act = Callable[[EnvironmentStore, argparse.Namespace], Awaitable[list[dict[str, Any]]]]


def _action(actions: Any, name: str, summary: str, act: Act) -> argparse.ArgumentParser:
    examples = "examples:\n" + "".join(f"{line}\n" for line in EXAMPLES.splitlines() if f" env {name}" in line)
    parser = add_subparser(actions, name, summary=summary, examples=examples)
    parser.add_argument("--data", type=Path, metavar="DIR", help="the server's data directory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=lambda arguments: asyncio.run(_run(act, arguments)), key=None)
    return parser


async def _run(act: Act, arguments: argparse.Namespace) -> int:
    config = Config.load()
    if arguments.key is not None:
        parse_root_key(arguments.key, "--key")
    if arguments.data is not None:
        config = attrs.evolve(config, data=arguments.data)
    async with open_environments(backends_of(config), create=act is _create) as store:
        rows = await act(store, arguments)
    _show(rows, as_json=arguments.json)
    return 0


async def _create(store: EnvironmentStore, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    environment = new_environment(arguments.type, arguments.organization, arguments.project)
    key = arguments.key or new_root_key(arguments.type)
    await store.create(environment, key)
    return [{**_row(environment), "key": key}]


async def _list(store: EnvironmentStore, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    environments = await store.list_all()
    if not arguments.show_keys:
        return [_row(environment) for environment in environments]
    return [{**_row(environment), "key": await _current_key(store, environment)} for environment in environments]


async def _current_key(store: EnvironmentStore, environment: Environment) -> str | None:
    keys = await store.find_root_keys(environment.id)
    return keys[0].value if keys else None


async def _rotate(store: EnvironmentStore, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    found = [environment for environment in await store.list_all() if environment.id == arguments.environment]
    kind = found[0].type if found else EnvironmentType.DEVELOPMENT
    key = new_root_key(kind)
    await store.rotate_root_key(EnvironmentId(arguments.environment), key, grace=timedelta(hours=arguments.grace_hours))
    return [{**_row(environment), "key": key} for environment in found]


def _row(environment: Environment) -> dict[str, Any]:
    return {
        "id": environment.id,
        "type": environment.type.value,
        "organization": environment.organization_id,
        "project": environment.project_id,
    }


def _show(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(to_json(rows, indent=2))
        return
    for line in table([["-" if value is None else str(value) for value in row.values()] for row in rows]):
        print(line)
