"""One session in a world whose clock stands still."""

from __future__ import annotations

import pytest

from sessions_core.domain.session import Session
from sessions_core.facade import Sessions
from sessions_core.testing import ManualClock
from unit.core.chats import HOME, spec
from unit.core.world import World


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def world(clock: ManualClock) -> World:
    return World(clock=clock)


@pytest.fixture
def sessions(world: World) -> Sessions:
    """Sessions that run nothing in the background."""
    return world.sessions()


@pytest.fixture
async def session(sessions: Sessions) -> Session:
    return (await sessions.sessions.create(HOME, spec())).session
