"""Fresh tokens: for the clients of a session, in turn-completes, and for whoever carries out a run."""

from __future__ import annotations

from typing import Final

import anyio
import attrs

from sessions_core.domain.bounded import BoundedDict
from sessions_core.domain.environment import RootKey
from sessions_core.domain.events import SystemFailed
from sessions_core.domain.ids import EnvironmentId
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Session
from sessions_core.errors import UnavailableError
from sessions_core.ports.clock import Clock
from sessions_core.ports.environment_store import EnvironmentStore
from sessions_core.ports.observer import Observer
from sessions_core.ports.session_tokens import SessionTokens

KEY_SECONDS: Final = 1.0
"""How long a root key is remembered: what another process rotates counts here within that time."""
REMEMBERED: Final = 1_000
PATIENCE_SECONDS: Final = 5.0
"""How long a turn may wait for the key."""


@attrs.frozen
class _Known:
    """The current root key as it was at a moment of the event loop's clock; None if there was none."""

    key: RootKey | None
    read_at: float


@attrs.define(kw_only=True)
class TokenIssuer:
    """Issues tokens under the current root key of their environment."""

    session_tokens: SessionTokens | None
    environments: EnvironmentStore
    clock: Clock
    observer: Observer
    _keys: BoundedDict[EnvironmentId, _Known] = attrs.field(init=False, factory=lambda: BoundedDict(REMEMBERED))

    async def issue(self, session: Session) -> str | None:
        """Return a fresh token for *session*, or None if nobody here makes any or there is no key to be had now."""
        key = await self._find_key(session.environment.id)
        if key is None or self.session_tokens is None:
            return None
        return self.session_tokens.issue(session, key, self.clock.now())

    async def issue_for_run(self, run: RunRecord) -> str | None:
        """Return a fresh token for whoever carries out *run*, or None like :meth:`issue`."""
        key = await self._find_key(run.environment.id)
        if key is None or self.session_tokens is None:
            return None
        return self.session_tokens.issue_for_run(run, key, self.clock.now())

    async def _find_key(self, environment_id: EnvironmentId) -> RootKey | None:
        if self.session_tokens is None:
            return None
        try:
            with anyio.fail_after(PATIENCE_SECONDS):
                return await self._key(environment_id)
        except (UnavailableError, TimeoutError) as error:
            self.observer(SystemFailed(step="session token", error=str(error) or "no answer in time"))
            return None

    async def _key(self, environment_id: EnvironmentId) -> RootKey | None:
        known, now = self._keys.get(environment_id), anyio.current_time()
        if known is None or now - known.read_at > KEY_SECONDS:
            keys = await self.environments.find_root_keys(environment_id)
            known = _Known(next((key for key in keys if key.expires_at is None), None), now)
            self._keys[environment_id] = known
        return known.key
