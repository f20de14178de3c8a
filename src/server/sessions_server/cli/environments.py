"""``sessions env``: environments and their keys. Works beside a running server, which sees changes in a second."""

from __future__ import annotations

import argparse
import math
from datetime import timedelta
from typing import Any, Final

from sessions_adapters.profiles import add_encryption_key
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.ids import EnvironmentId
from sessions_core.ports.environment_store import EnvironmentStore
from sessions_server.cli import additional_keys
from sessions_server.cli.environment_actions import Row, add_action, chosen_backends, perform, show
from sessions_server.cli.keys import new_environment, new_root_key, parse_root_key
from sessions_server.cli.parsers import add_subparser

GRACE_HOURS: Final = 24
LONGEST_GRACE_HOURS: Final = 24 * 365
EXAMPLES: Final = """examples:
  sessions env create --type PRODUCTION --project shop
  sessions env list --show-keys --json
  sessions env create --key tr_dev_mine00000000000000000000
  sessions env rotate-key env_… --grace-hours 24
  sessions env key create env_… --name ci --scope write:tasks:echo
  sessions env re-encrypt --new-key
"""
_TYPES: Final = {kind.value.lower(): kind for kind in EnvironmentType}


def add_parser(commands: Any) -> None:
    """Add ``env`` to the command line."""
    parser = add_subparser(
        commands, "env", summary="make, list and rotate environments and their keys", examples=EXAMPLES
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    summary = "make an environment and print its root key"
    create = add_action(actions, "create", summary, _create, examples=EXAMPLES)
    create.set_defaults(command=_run_create)
    create.add_argument(
        "--type", type=_type, metavar="TYPE", default=EnvironmentType.DEVELOPMENT, help="default: DEVELOPMENT"
    )
    create.add_argument("--organization", default="default", help="id of the organization (default: default)")
    create.add_argument("--project", default="default", help="id of the project (default: default)")
    create.add_argument("--key", help="use this root key instead of a fresh one (others on this machine can see it)")
    listing = add_action(actions, "list", "list all environments", _list, examples=EXAMPLES)
    listing.add_argument("--show-keys", action="store_true", help="show the current root keys, too")
    summary = "make a new root key; the old one works for a while"
    rotate = add_action(actions, "rotate-key", summary, _rotate, examples=EXAMPLES)
    rotate.add_argument("environment", metavar="ID", help="id of the environment")
    rotate.add_argument(
        "--grace-hours",
        type=_hours,
        default=GRACE_HOURS,
        metavar="HOURS",
        help=f"how long the old key works (default: {GRACE_HOURS})",
    )
    additional_keys.add_parser(actions)
    summary = "encrypt all root keys with the current encryption key"
    sealing = add_action(actions, "re-encrypt", summary, _re_encrypt, examples=EXAMPLES)
    sealing.add_argument("--new-key", action="store_true", help="put a fresh key into the data directory first")
    sealing.set_defaults(command=_run_re_encrypt)


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


def _run_create(arguments: argparse.Namespace) -> int:
    if arguments.key is not None:
        parse_root_key(arguments.key, "--key")  # before anything is made
    return show(perform(_create, arguments, creates=True), arguments)


async def _create(store: EnvironmentStore, arguments: argparse.Namespace) -> list[Row]:
    environment = new_environment(arguments.type, arguments.organization, arguments.project)
    key = arguments.key or new_root_key(arguments.type)
    await store.create(environment, key)
    return [{**_row(environment), "key": key}]


async def _list(store: EnvironmentStore, arguments: argparse.Namespace) -> list[Row]:
    environments = await store.list_all()
    if not arguments.show_keys:
        return [_row(environment) for environment in environments]
    return [{**_row(environment), "key": await _current_key(store, environment)} for environment in environments]


async def _current_key(store: EnvironmentStore, environment: Environment) -> str | None:
    keys = await store.find_root_keys(environment.id)
    return keys[0].value if keys else None


async def _rotate(store: EnvironmentStore, arguments: argparse.Namespace) -> list[Row]:
    found = [environment for environment in await store.list_all() if environment.id == arguments.environment]
    kind = found[0].type if found else EnvironmentType.DEVELOPMENT
    key = new_root_key(kind)
    await store.rotate_root_key(EnvironmentId(arguments.environment), key, grace=timedelta(hours=arguments.grace_hours))
    return [{**_row(environment), "key": key} for environment in found]


def _run_re_encrypt(arguments: argparse.Namespace) -> int:
    rows = perform(_re_encrypt, arguments)
    if arguments.json:
        return show(rows, arguments)
    print(f"root keys that the current encryption key now opens: {rows[0]['rootKeys']}")
    return 0


async def _re_encrypt(store: EnvironmentStore, arguments: argparse.Namespace) -> list[Row]:
    if arguments.new_key:
        add_encryption_key(chosen_backends(arguments))
    return [{"rootKeys": await store.reseal_root_keys()}]


def _row(environment: Environment) -> Row:
    return {
        "id": environment.id,
        "type": environment.type.value,
        "organization": environment.organization_id,
        "project": environment.project_id,
    }
