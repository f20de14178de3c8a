"""Lists from an index that lags behind the store: what is shown is what the store says now."""

from __future__ import annotations

from datetime import timedelta

import anyio
import attrs
import pytest

from sessions_adapters.memory import InMemorySessionIndex, Tables
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import SessionId
from sessions_core.domain.pagination import Direction, IndexEntry, PageRequest, SessionFilter
from sessions_core.domain.session import SessionUpdate
from sessions_core.domain.status import SessionStatus
from sessions_core.errors import IndexUnavailableError
from sessions_core.facade import Sessions
from sessions_core.ports.session_index import SessionIndex
from unit.core.chats import HOME, spec
from unit.core.world import World

ALL = SessionFilter(environment_id=HOME.id)


@attrs.define
class LaggingIndex(SessionIndex):
    """Shows the sessions as they were when :meth:`catch_up` was called last.

    Attributes:
        is_down: Gives no answer.
    """

    world: World
    is_down: bool = False
    _seen: InMemorySessionIndex = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.catch_up()

    def catch_up(self) -> None:
        tables = Tables(self.world.clock)
        tables.sessions.update(self.world.tables.sessions)
        self._seen = InMemorySessionIndex(tables)

    async def select(self, environment: Environment, wanted: SessionFilter, request: PageRequest) -> list[IndexEntry]:
        if self.is_down:
            raise IndexUnavailableError
        return await self._seen.select(environment, wanted, request)

    async def count(self, environment: Environment, wanted: SessionFilter) -> int:
        return await self._seen.count(environment, wanted)

    async def list_tags(self, environment: Environment, *, containing: str = "", limit: int = 100) -> list[str]:
        return await self._seen.list_tags(environment, containing=containing, limit=limit)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def index(world: World) -> LaggingIndex:
    return LaggingIndex(world)


@pytest.fixture
def sessions(world: World, index: LaggingIndex) -> Sessions:
    return world.sessions(index=index)


async def make(sessions: Sessions, count: int) -> list[SessionId]:
    """Make sessions, a second apart; return their ids, newest first."""
    made: list[SessionId] = []
    for _ in range(count):
        made.insert(0, (await sessions.sessions.create(HOME, spec(name=None))).session.id)
        await anyio.sleep(1)
    return made


async def shown(sessions: Sessions, *statuses: SessionStatus) -> list[SessionId]:
    wanted = attrs.evolve(ALL, statuses=statuses)
    page = await sessions.sessions.list_sessions(HOME, wanted, PageRequest(size=100))
    return [session.id for session in page.items]


async def test_a_new_session_is_listed_once_the_index_has_it(sessions: Sessions, index: LaggingIndex) -> None:
    made = await make(sessions, 2)
    assert await shown(sessions) == []
    index.catch_up()
    assert await shown(sessions) == made


async def test_sessions_are_shown_as_the_store_has_them_now(sessions: Sessions, index: LaggingIndex) -> None:
    [session_id] = await make(sessions, 1)
    index.catch_up()
    await sessions.sessions.update(HOME.id, session_id, SessionUpdate(tags=("new",)))
    page = await sessions.sessions.list_sessions(HOME, ALL, PageRequest())
    assert [session.tags for session in page.items] == [("new",)]


async def test_what_was_closed_since_is_not_shown_as_active(sessions: Sessions, index: LaggingIndex) -> None:
    newest, closed, oldest = await make(sessions, 3)
    index.catch_up()
    await sessions.sessions.close(HOME.id, closed)
    assert await shown(sessions, SessionStatus.ACTIVE) == [newest, oldest]
    assert await shown(sessions) == [newest, closed, oldest]


async def test_what_expired_since_is_not_shown_as_active(sessions: Sessions, index: LaggingIndex, world: World) -> None:
    end = world.clock.now() + timedelta(seconds=10)
    lasting = await sessions.sessions.create(HOME, attrs.evolve(spec(name=None), expires_at=end))
    index.catch_up()
    assert await shown(sessions, SessionStatus.ACTIVE) == [lasting.session.id]
    await anyio.sleep(10)
    assert await shown(sessions, SessionStatus.ACTIVE) == []
    assert await shown(sessions, SessionStatus.EXPIRED) == [lasting.session.id]


async def test_what_is_gone_from_the_store_is_not_shown(sessions: Sessions, index: LaggingIndex, world: World) -> None:
    kept, gone = await make(sessions, 2)
    index.catch_up()
    del world.tables.sessions[gone]
    assert await shown(sessions) == [kept]


async def test_a_page_from_which_all_was_left_out_still_leads_on(sessions: Sessions, index: LaggingIndex) -> None:
    made = await make(sessions, 6)
    index.catch_up()
    for session_id in made[1:4]:
        await sessions.sessions.close(HOME.id, session_id)
    wanted = attrs.evolve(ALL, statuses=(SessionStatus.ACTIVE,))
    pages, cursor = [], None
    while True:
        page = await sessions.sessions.list_sessions(HOME, wanted, PageRequest(size=2, cursor=cursor))
        pages.append([session.id for session in page.items])
        cursor = page.next
        if cursor is None:
            break
    assert pages == [[made[0]], [], [made[4], made[5]]]
    back = await sessions.sessions.list_sessions(
        HOME, wanted, PageRequest(size=2, cursor=page.previous, direction=Direction.BEFORE)
    )
    assert back.items == ()
    assert back.previous is not None


async def test_an_index_that_is_down_is_told_and_hinders_nothing_else(sessions: Sessions, index: LaggingIndex) -> None:
    index.is_down = True
    [session_id] = await make(sessions, 1)
    with pytest.raises(IndexUnavailableError):
        await sessions.sessions.list_sessions(HOME, ALL, PageRequest())
    assert (await sessions.sessions.get(HOME.id, session_id)).id == session_id
