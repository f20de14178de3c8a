"""``sessions env key``: an environment's additional keys. Works beside a running server, which sees changes in a second."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from sessions_core.domain.access import Action, Scope
from sessions_core.domain.environment import AdditionalKey, Environment
from sessions_core.domain.ids import AccessKeyId, EnvironmentId
from sessions_core.domain.waitpoint import parse_duration
from sessions_core.errors import EnvironmentNotFoundError
from sessions_core.ports.environment_store import EnvironmentStore
from sessions_server.cli.environment_actions import Act, Row, add_action, perform, show
from sessions_server.cli.keys import new_additional_key
from sessions_server.cli.parsers import add_subparser
from sessions_server.wire.values import iso, maybe_iso

DESCRIPTION: Final = """Make, list and revoke an environment's additional keys.

An additional key does what its scopes say and signs nothing. Only its hash is kept, so it is shown when it is made and
never again.
"""
EXAMPLES: Final = """examples:
  sessions env key create env_… --name ci --scope write:tasks:echo --scope read:sessions
  sessions env key create env_… --name audit --scope read:sessions --expires 90d --json
  sessions env key list env_…
  sessions env key revoke env_… key_…
"""
TYPES: Final = ("sessions", "tasks", "runs", "all")


def add_parser(actions: Any) -> None:
    """Add ``key`` to the actions of ``sessions env``."""
    summary = "make, list and revoke additional keys"
    parser = add_subparser(actions, "key", summary=summary, examples=EXAMPLES, description=DESCRIPTION)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = _add(actions, "create", "make a key with limited rights and print it, once", _create)
    create.add_argument(
        "--scope",
        type=_scope,
        action="append",
        required=True,
        metavar="SCOPE",
        dest="scopes",
        help="action:type or action:type:id, such as read:sessions; may be repeated",
    )
    create.add_argument("--name", default="", help="what it is for")
    create.add_argument(
        "--expires", type=_duration, metavar="DURATION", help="how long it works, such as 90d or 12h (default: no end)"
    )
    listing = _add(actions, "list", "list the keys of an environment, never their values", _list)
    revoke = _add(actions, "revoke", "let a key work no longer", _revoke)
    for parser, act in ((listing, _list), (revoke, _revoke)):
        parser.set_defaults(command=partial(_show_with_head, act))
    revoke.add_argument("key", metavar="KEY_ID", help="id of the key")


def _add(actions: Any, name: str, summary: str, act: Act) -> argparse.ArgumentParser:
    parser = add_action(actions, f"key {name}", summary, act, examples=EXAMPLES)
    parser.add_argument("environment", metavar="ID", help="id of the environment")
    return parser


def _show_with_head(act: Act, arguments: argparse.Namespace) -> int:
    return show(perform(act, arguments), arguments, has_head=True)


def _scope(text: str) -> str:
    """Refuse what would never match anything: most likely a word is mistyped."""
    scope = Scope.parse(text)
    if scope.action not in (*Action, "*"):
        raise argparse.ArgumentTypeError(f"must begin with one of {', '.join(Action)}")
    if scope.type not in TYPES and text != Action.ADMIN:
        raise argparse.ArgumentTypeError(f"must be action:type, where type is one of {', '.join(TYPES)}")
    if scope.id == "":
        raise argparse.ArgumentTypeError("must not end with a colon")
    return text


def _duration(text: str) -> timedelta:
    duration = parse_duration(text)
    if duration is None or duration < timedelta(seconds=1):
        raise argparse.ArgumentTypeError("must be a duration of at least a second, such as 90d or 12h")
    return duration


async def _create(store: EnvironmentStore, arguments: argparse.Namespace) -> list[Row]:
    environment = await _find(store, arguments.environment)
    value = new_additional_key(environment.type)
    expires_at = None if arguments.expires is None else datetime.now(UTC) + arguments.expires
    added = await store.add_key(environment.id, value, arguments.scopes, name=arguments.name, expires_at=expires_at)
    return [{**_row(added), "key": value}]


async def _find(store: EnvironmentStore, environment_id: str) -> Environment:
    for environment in await store.list_all():
        if environment.id == environment_id:
            return environment
    raise EnvironmentNotFoundError(environment_id)


async def _list(store: EnvironmentStore, arguments: argparse.Namespace) -> list[Row]:
    return [_history_of(key) for key in await store.list_keys(EnvironmentId(arguments.environment))]


async def _revoke(store: EnvironmentStore, arguments: argparse.Namespace) -> list[Row]:
    revoked = await store.revoke_key(EnvironmentId(arguments.environment), AccessKeyId(arguments.key))
    return [_history_of(revoked)]


def _row(key: AdditionalKey) -> Row:
    return {"id": key.id, "name": key.name, "scopes": list(key.scopes), "expiresAt": maybe_iso(key.expires_at)}


def _history_of(key: AdditionalKey) -> Row:
    history = {"createdAt": iso(key.created_at), "lastUsedAt": maybe_iso(key.last_used_at)}
    return {**_row(key), **history, "revokedAt": maybe_iso(key.revoked_at)}
