"""Who asks, in which environment, and what it may do."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import attrs

from sessions_core.domain.access import Action, Credential, Resource, allows_any, session_resources
from sessions_core.domain.environment import Environment

REMEMBERED_DECISIONS: Final = 64
_FOREVER: Final = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


@attrs.define(eq=False, kw_only=True)
class Caller:
    """Whoever sent the request.

    Attributes:
        counted_as: The name under which a public token's requests and streams are counted; None if a key was shown.
        scopes: None allows everything in the environment.
        expires_at: Unix seconds after which the credential no longer works; None if it has no end.
        one_time: For a one-time token the hash under which its use is remembered.
        is_rolling: Whether it may have a fresh credential of the same kind before this one expires.
        header: What was shown; None if nothing was.
    """

    credential: Credential
    environment: Environment
    header: str | None = attrs.field(default=None, repr=False)
    counted_as: str | None = None
    scopes: tuple[str, ...] | None = None
    expires_at: float | None = None
    one_time: str | None = None
    is_rolling: bool = False
    _granted: set[tuple[Action, str]] = attrs.field(init=False, factory=set)

    @property
    def is_secret(self) -> bool:
        """Tell whether it holds a key, so that it is a server and no browser."""
        return self.credential is not Credential.PUBLIC_TOKEN

    @property
    def lasts(self) -> bool:
        """Tell whether its credential works without an end, or until it has a fresh one: only then may it have what does the same."""
        return self.expires_at is None or self.is_rolling

    @property
    def ends_at(self) -> datetime | None:
        """The moment after which the credential no longer works."""
        return None if self.expires_at is None else datetime.fromtimestamp(min(self.expires_at, _FOREVER), UTC)

    def may(self, action: Action, resources: Iterable[Resource]) -> bool:
        """Tell whether it may do *action* to at least one of *resources*."""
        return self.scopes is None or allows_any(self.scopes, action, resources)

    def may_with_session(self, action: Action, *names: str | None) -> bool:
        """Tell whether it may do *action* to the session of which *names* are ids.

        A yes is remembered, as a session never changes its ids; a no is not.
        """
        if self.scopes is None or (action, names[0]) in self._granted:
            return True
        allowed = allows_any(self.scopes, action, session_resources(*names))
        if allowed and names[0] and len(self._granted) < REMEMBERED_DECISIONS:
            self._granted.add((action, names[0]))
        return allowed
