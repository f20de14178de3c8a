"""The gate of ``in``: appends go in only while a run is going to read them.

``in`` takes an append only under the guard ``live <run version>``. Whoever appends and meets another guard opens the
gate: reads the session's row again, ensures a live run, and raises the guard to that run's version. A run leaves by
lowering it to ``idle`` under the condition that nothing came in meanwhile, so a message is never stranded between
"the run looked" and "the run left".
"""

from __future__ import annotations

from typing import Final

import attrs

from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.guard import Guard
from sessions_core.domain.session import Session
from sessions_core.errors import ClosedError, SessionClosedError, SessionNotFoundError
from sessions_core.ports.channel_log import ChannelLog
from sessions_core.ports.clock import Clock
from sessions_core.ports.session_store import SessionStore
from sessions_core.services.run_manager import RunManager

LEAVE_ATTEMPTS: Final = 8


@attrs.define(kw_only=True)
class InputGate:
    """Opens ``in`` for appends and closes it behind a run that leaves."""

    store: SessionStore
    log: ChannelLog
    run_manager: RunManager
    clock: Clock

    async def open(self, session: Session, actual: Guard) -> Guard:
        """Ensure a live run and return the guard to append under, after meeting the guard *actual*.

        Raises:
            ClosedError: The session takes nothing any more.
            ClaimExhaustedError: Others kept changing the run.
        """
        if actual.is_sealed:
            raise await self.refusal(session) or SessionClosedError(session.key)
        left = actual.number if not actual.is_live else actual.number - 1
        fresh = await self.run_manager.ensure_run(await self._read_again(session), left=left)
        new = Guard.live(fresh.current_run_version)
        if actual != new:
            await self.log.set_guard(fresh.channel(Io.IN), new, expect=actual)
        return new

    async def refusal(self, session: Session) -> ClosedError | None:
        """Return the error that a write to *session* deserves by its row as it is now, or None if it is open."""
        return (await self._read_again(session)).refusal(self.clock.now())

    async def leave(self, channel: Channel, version: int, *, read_to: int) -> bool:
        """Let run *version* leave if it has read every record up to *read_to* and there is none after it.

        Returns:
            False if there is something to read, so that the run has to stay.
        """
        idle = Guard.idle(version)
        for _ in range(LEAVE_ATTEMPTS):
            tail = await self.log.tail(channel)
            if not tail.guard.rises_to(idle):
                return True
            if tail.next_seq != read_to + 1:
                return False
            change = await self.log.set_guard(channel, idle, expect=tail.guard, if_tail=tail.next_seq)
            if change.done:
                return True
        return False

    async def _read_again(self, session: Session) -> Session:
        fresh = await self.store.find(session.environment.id, session.id)
        if fresh is None:
            raise SessionNotFoundError(session.id)
        return fresh
