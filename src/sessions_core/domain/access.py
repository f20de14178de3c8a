"""Who may do what: the grammar of scopes, and the table of every route's requirement.

A scope is ``action[:type[:id]]``, split at the first two colons only, so ids may contain colons.
The table :data:`ACCESS` is the one place that says what a route asks for; the server reads it, the tests walk it, and
the page of permissions is written from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, StrEnum
from typing import Final

import attrs


class Action(StrEnum):
    """What is done. None implies another."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@attrs.frozen
class Resource:
    """What it is done to; without an id, the whole type."""

    type: str
    id: str | None = None


@attrs.frozen
class Scope:
    """One permission as written in a token or stored with a key."""

    action: str
    type: str | None = None
    id: str | None = None

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Read a scope. Every text is one; unknown words just never match."""
        action, typed, rest = text.partition(":")
        kind, named, name = rest.partition(":")
        return cls(action, kind if typed else None, name if named else None)

    def grants(self, action: Action, resource: Resource) -> bool:
        """Tell whether this scope alone allows *action* on *resource*."""
        if self.action == "admin" and self.type is None:
            return True
        if self.action not in (action, "*"):
            return False
        return self.type == "all" or (
            self.type == resource.type and (self.id is None or (self.id != "" and self.id == resource.id))
        )


def allows_any(scopes: Iterable[str], action: Action, resources: Iterable[Resource]) -> bool:
    """Tell whether *scopes* allow *action* on at least one of *resources*. Empty lists never do."""
    parsed = [Scope.parse(scope) for scope in scopes]
    return any(scope.grants(action, resource) for resource in resources for scope in parsed)


def allows_every(scopes: Iterable[str], action: Action, resources: Iterable[Resource]) -> bool:
    """Tell whether *scopes* allow *action* on each of *resources*. Empty lists never do."""
    parsed = [Scope.parse(scope) for scope in scopes]
    wanted = list(resources)
    return bool(wanted) and all(any(scope.grants(action, resource) for scope in parsed) for resource in wanted)


def session_scopes(key: str) -> tuple[str, str]:
    """Return the scopes of the token that a session's creator gets."""
    return (f"read:sessions:{key}", f"write:sessions:{key}")


def run_scopes(run_id: str, key: str) -> tuple[str, str, str]:
    """Return the scopes of the token for whoever carries out one run: that run itself, and reading its session *key*."""
    return (f"write:runs:{run_id}", f"read:runs:{run_id}", f"read:sessions:{key}")


class Credential(Enum):
    """Kind of credential a caller showed."""

    ROOT_KEY = "root key"
    ADDITIONAL_KEY = "additional key"
    PUBLIC_TOKEN = "public token"  # noqa: S105 - a word, not a secret


SECRET_KEYS: Final = frozenset({Credential.ROOT_KEY, Credential.ADDITIONAL_KEY})
ANY_CREDENTIAL: Final = frozenset(Credential)


class Target(Enum):
    """What a route's requirement is about."""

    NOTHING = "nothing: any valid credential of a listed kind"
    ROOT_ONLY = "nothing: the route declares no permission, so scoped keys are refused"
    SESSION = "sessions:<any id of the session>, or sessions"
    CREATE = "tasks:<body's taskIdentifier>, or sessions"
    LIST = "sessions, tasks, or tasks:<each filtered task>"
    RUN = "the session the run serves"
    OWN_RUN = "runs:<run>: the right to carry it out, which no session gives"
    OWN_WAIT = "runs:<run>, and to read the session that the body names"
    WAITPOINT = "runs:<the run that waits>"


@attrs.frozen(kw_only=True)
class Access:
    """What one route asks for.

    Attributes:
        calling_run: Whether ``write:runs:<run>`` does, too, for the body's ``callingRunId`` and that run's own session.
        one_time: Whether a one-time token will do: not where its holder gets the means for more than one change.
    """

    action: Action
    target: Target
    credentials: frozenset[Credential] = ANY_CREDENTIAL
    calling_run: bool = False
    one_time: bool = True


ACCESS: Final[dict[str, Access]] = {
    "create_session": Access(action=Action.WRITE, target=Target.CREATE),
    "list_sessions": Access(action=Action.READ, target=Target.LIST),
    "retrieve_session": Access(action=Action.READ, target=Target.SESSION),
    "update_session": Access(action=Action.ADMIN, target=Target.SESSION),
    "close_session": Access(action=Action.ADMIN, target=Target.SESSION, calling_run=True),
    "end_and_continue": Access(action=Action.WRITE, target=Target.SESSION, calling_run=True),
    "list_session_runs": Access(action=Action.READ, target=Target.SESSION),
    "list_session_waitpoints": Access(action=Action.READ, target=Target.SESSION),
    "list_session_channels": Access(action=Action.READ, target=Target.SESSION),
    "read_snapshot": Access(action=Action.READ, target=Target.SESSION),
    "write_snapshot": Access(action=Action.WRITE, target=Target.SESSION),
    "read_transcript": Access(action=Action.READ, target=Target.SESSION),
    "initialize_in": Access(action=Action.WRITE, target=Target.SESSION, one_time=False),
    "initialize_out": Access(action=Action.WRITE, target=Target.SESSION, credentials=SECRET_KEYS, one_time=False),
    "subscribe": Access(action=Action.READ, target=Target.SESSION),
    "read_records": Access(action=Action.READ, target=Target.SESSION),
    "append_in": Access(action=Action.WRITE, target=Target.SESSION),
    "append_out": Access(action=Action.WRITE, target=Target.SESSION, credentials=SECRET_KEYS),
    "create_wait": Access(action=Action.WRITE, target=Target.OWN_WAIT),
    "retrieve_waitpoint": Access(action=Action.READ, target=Target.WAITPOINT),
    "wait_for_waitpoint": Access(action=Action.WRITE, target=Target.WAITPOINT),
    "retrieve_run": Access(action=Action.READ, target=Target.RUN),
    "start_attempt": Access(action=Action.WRITE, target=Target.OWN_RUN),
    "heartbeat_run": Access(action=Action.WRITE, target=Target.OWN_RUN),
    "append_run_out": Access(action=Action.WRITE, target=Target.OWN_RUN),
    "complete_attempt": Access(action=Action.WRITE, target=Target.OWN_RUN),
    "read_token_claims": Access(action=Action.READ, target=Target.ROOT_ONLY, credentials=SECRET_KEYS),
    "create_public_token": Access(action=Action.WRITE, target=Target.NOTHING, credentials=SECRET_KEYS),
}


def session_resources(*names: str | None) -> tuple[Resource, ...]:
    """Return the resources of which any one suffices: the session by each of its ids."""
    return tuple(Resource("sessions", name) for name in names if name)


def may_create(scopes: Iterable[str], task: str) -> bool:
    """Tell whether *scopes* allow creating a session bound to *task*. An id-scoped session token does not."""
    return allows_any(scopes, Action.WRITE, (Resource("tasks", task), Resource("sessions")))


def may_list(scopes: Iterable[str], tasks: Iterable[str]) -> bool:
    """Tell whether *scopes* allow listing sessions, all of them or only those of *tasks*."""
    texts = list(scopes)
    broad = allows_any(texts, Action.READ, (Resource("sessions"), Resource("tasks")))
    return broad or allows_every(texts, Action.READ, [Resource("tasks", task) for task in tasks])


def may_grant(scopes: Iterable[str], wanted: Iterable[str]) -> bool:
    """Tell whether a holder of *scopes* may mint a token with the *wanted* ones: it never gets more than it has."""
    held = [Scope.parse(scope) for scope in scopes]
    return all(any(_covers(have, Scope.parse(want)) for have in held) for want in wanted)


def _covers(have: Scope, want: Scope) -> bool:
    if have == want or (have.action == "admin" and have.type is None):
        return True
    if want.type is None or have.action not in (want.action, "*"):
        return False
    return have.type == "all" or (have.type == want.type and (have.id is None or have.id == want.id))
