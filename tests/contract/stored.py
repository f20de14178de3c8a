"""Sessions that a store has, and how they end."""

from __future__ import annotations

from collections.abc import Callable

from contract.makers import ENV_A, initial
from sessions_core.domain.session import Session
from sessions_core.ports.session_store import SessionStore
from sessions_core.testing import ManualClock

StoredRuns = Callable[[], set[str]]


async def store_new(store: SessionStore, session: Session) -> Session:
    """Store a session with its first run."""
    return (await store.create(session, initial(session))).session


async def close(store: SessionStore, _: ManualClock, session: Session) -> Session:
    """Close it."""
    return await store.close(ENV_A.id, session.id, "done")


async def let_expire(_: SessionStore, clock: ManualClock, session: Session) -> Session:
    """Let the time come at which it expires."""
    assert session.expires_at is not None
    clock.moment = session.expires_at
    return session
