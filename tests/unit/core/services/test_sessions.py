"""Creating, finding, changing and listing sessions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import attrs
import pytest

from sessions_core.domain.channel import Io
from sessions_core.domain.environment import Environment
from sessions_core.domain.events import SessionCreated, SystemFailed
from sessions_core.domain.ids import EnvironmentId
from sessions_core.domain.pagination import Direction, PageRequest, SessionFilter
from sessions_core.domain.session import SessionUpdate
from sessions_core.domain.status import SessionStatus
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.errors import (
    InvalidError,
    RunNotFoundError,
    SessionClosedError,
    SessionExpiredError,
    SessionNotFoundError,
    TaskMismatchError,
)
from sessions_core.facade import Sessions
from sessions_core.services.session_service import NewSession
from sessions_core.testing import ManualClock
from unit.core.chats import HOME, NAME, say, spec
from unit.core.services.runs import end_run
from unit.core.world import World

AWAY: Environment = attrs.evolve(HOME, id=EnvironmentId("env_away"))


# --- Create ---------------------------------------------------------------------------------------


async def test_a_new_session_gets_a_run_that_is_dispatched(world: World, sessions: Sessions) -> None:
    created = await sessions.sessions.create(HOME, spec())
    assert not created.is_cached
    (run,) = world.runs()
    assert created.run_id == run.id == created.session.current_run_id
    assert created.session.current_run_version == run.version == 1
    assert run.dispatched_at is not None
    assert list(world.engine.jobs) == [run.id]
    assert [line.reason for line in await sessions.sessions.list_runs(HOME.id, NAME)] == ["initial"]
    assert [event.is_cached for event in world.observer.of(SessionCreated)] == [False]


async def test_creating_again_gets_the_session_and_its_live_run(world: World, sessions: Sessions) -> None:
    first = await sessions.sessions.create(HOME, spec())
    again = await sessions.sessions.create(HOME, attrs.evolve(spec(maxAttempts=7), tags=("new",)))
    assert again.is_cached
    assert (again.session.id, again.run_id) == (first.session.id, first.run_id)
    assert again.session.trigger_config.max_attempts == 7, "the trigger config is refreshed"
    assert again.session.tags == (), "nothing else is"
    assert len(world.runs()) == 1


async def test_creating_again_replaces_a_dead_run(world: World, sessions: Sessions) -> None:
    first = await sessions.sessions.create(HOME, spec())
    await end_run(world)
    again = await sessions.sessions.create(HOME, spec())
    assert again.run_id != first.run_id
    assert world.runs()[1].previous_run_id == first.run_id
    assert world.runs()[1].payload["continuation"] is True
    assert world.session().current_run_version == 2


async def test_sessions_without_external_id_are_always_new(world: World, sessions: Sessions) -> None:
    one, other = [await sessions.sessions.create(HOME, spec(name=None)) for _ in range(2)]
    assert one.session.id != other.session.id
    assert one.session.external_id is None


async def test_another_task_is_a_mismatch_and_changes_nothing(world: World, sessions: Sessions) -> None:
    await sessions.sessions.create(HOME, spec())
    before = world.session()
    with pytest.raises(TaskMismatchError) as caught:
        await sessions.sessions.create(HOME, spec("other", maxAttempts=9))
    assert (caught.value.task, caught.value.stored_task) == ("other", "echo")
    assert world.session() == before
    assert len(world.runs()) == 1


async def test_a_closed_session_is_not_created_again(world: World, sessions: Sessions) -> None:
    await sessions.sessions.create(HOME, spec())
    await sessions.sessions.close(HOME.id, NAME, "done")
    before = world.session()
    with pytest.raises(SessionClosedError) as caught:
        await sessions.sessions.create(HOME, spec(maxAttempts=9))
    assert caught.value.closed_reason == "done"
    assert world.session() == before


async def test_an_expired_session_is_not_created_again(world: World, sessions: Sessions, clock: ManualClock) -> None:
    minute = timedelta(minutes=1)
    await sessions.sessions.create(HOME, attrs.evolve(spec(), expires_at=clock.now() + minute))
    clock.advance(minute)
    with pytest.raises(SessionExpiredError):
        await sessions.sessions.create(HOME, attrs.evolve(spec(), expires_at=clock.now() + minute))


async def test_a_session_cannot_be_born_expired(world: World, sessions: Sessions, clock: ManualClock) -> None:
    with pytest.raises(InvalidError, match="expiresAt"):
        await sessions.sessions.create(HOME, attrs.evolve(spec(), expires_at=clock.now()))
    assert world.tables.sessions == {}


async def test_a_wrong_value_is_named_and_nothing_is_stored(world: World, sessions: Sessions) -> None:
    with pytest.raises(InvalidError, match="taskIdentifier"):
        await sessions.sessions.create(HOME, spec("t" * 129))
    assert world.tables.sessions == {}


async def test_many_creates_of_one_id_make_one_session_with_one_run(world: World, sessions: Sessions) -> None:
    made: list[Any] = []

    async def create() -> None:
        made.append(await sessions.sessions.create(HOME, spec()))

    async with anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(create)
    assert len({one.run_id for one in made}) == 1
    assert [one.is_cached for one in made].count(False) == 1
    assert len(world.runs()) == 1


async def test_an_engine_that_is_down_does_not_hinder_a_create(world: World, sessions: Sessions) -> None:
    world.engine.is_down = True
    await sessions.sessions.create(HOME, spec())
    assert world.runs()[0].dispatched_at is None
    assert [event.step for event in world.observer.of(SystemFailed)] == ["dispatch"]
    world.engine.is_down = False
    await say(sessions, "hello")
    assert world.runs()[0].dispatched_at is not None, "the next append dispatches it"


# --- Environments ---------------------------------------------------------------------------------


async def test_nothing_of_one_environment_exists_in_another(world: World, sessions: Sessions) -> None:
    home = await sessions.sessions.create(HOME, spec())
    for name in (NAME, home.session.id):
        with pytest.raises(SessionNotFoundError):
            await sessions.sessions.get(AWAY.id, name)
        assert await sessions.sessions.find_cached(AWAY.id, name) is None
        with pytest.raises(SessionNotFoundError):
            await sessions.sessions.close(AWAY.id, name)
        with pytest.raises(SessionNotFoundError):
            await sessions.sessions.end_and_continue(AWAY.id, name, home.run_id, "upgrade")
    with pytest.raises(RunNotFoundError):
        await sessions.sessions.get_run(AWAY.id, home.run_id)
    away = await sessions.sessions.create(AWAY, spec())
    assert not away.is_cached
    await say(sessions, "hello")
    assert (await world.log.tail(away.session.channel(Io.IN))).next_seq == 0


# --- Find, update, list ---------------------------------------------------------------------------


async def test_a_session_is_found_by_either_id_also_from_the_cache(sessions: Sessions) -> None:
    made = (await sessions.sessions.create(HOME, spec())).session
    for name in (NAME, made.id):
        assert (await sessions.sessions.get(HOME.id, name)).id == made.id
        found = await sessions.sessions.find_cached(HOME.id, name)
        assert found is not None
        assert found.id == made.id
    assert await sessions.sessions.find_cached(HOME.id, "nobody") is None


async def test_an_update_works_on_closed_sessions_too(sessions: Sessions) -> None:
    await sessions.sessions.create(HOME, spec())
    await sessions.sessions.close(HOME.id, NAME)
    updated = await sessions.sessions.update(HOME.id, NAME, SessionUpdate(tags=("a",)))
    assert updated.tags == ("a",)
    assert updated.metadata is None
    assert updated.closed_at is not None


async def test_a_list_walks_forward_and_back_and_filters_by_status(sessions: Sessions, clock: ManualClock) -> None:
    for number in range(7):
        await sessions.sessions.create(HOME, spec(name=f"s{number}"))
        clock.advance(timedelta(milliseconds=number % 2))
    await sessions.sessions.close(HOME.id, "s3")
    wanted = SessionFilter(environment_id=HOME.id, statuses=(SessionStatus.ACTIVE,))
    names: list[str] = []
    request: PageRequest | None = PageRequest(size=2)
    page = None
    while request is not None:
        page = await sessions.sessions.list_sessions(HOME, wanted, request)
        names += [session.external_id for session in page.items]
        request = PageRequest(size=2, cursor=page.next) if page.next else None
    assert names == ["s6", "s5", "s4", "s2", "s1", "s0"]
    assert page is not None
    back = PageRequest(size=2, cursor=page.previous, direction=Direction.BEFORE)
    before = await sessions.sessions.list_sessions(HOME, wanted, back)
    assert [session.external_id for session in before.items] == ["s4", "s2"]
    assert (await sessions.sessions.list_sessions(AWAY, attrs.evolve(wanted, environment_id=AWAY.id), back)).items == ()


# --- Defaults and external ids --------------------------------------------------------------------


async def test_a_new_session_needs_nothing_but_its_task(sessions: Sessions) -> None:
    created = (await sessions.sessions.create(HOME, NewSession(task="echo"))).session
    assert (created.type, created.external_id, created.trigger_config) == ("chat.agent", None, TriggerConfig())


def test_an_external_id_is_trimmed() -> None:
    assert NewSession(task="echo", external_id=" chat 1 ").external_id == "chat 1"


@pytest.mark.parametrize("name", ["", "  ", "session_1", "x" * 257, "nul\x00"])
def test_an_external_id_that_breaks_a_rule_is_refused_before_anything_is_stored(name: str) -> None:
    with pytest.raises(InvalidError, match="externalId"):
        NewSession(task="echo", external_id=name)


async def test_a_list_of_nothing_in_particular_has_all_sessions_of_the_environment(sessions: Sessions) -> None:
    for number in range(3):
        await sessions.sessions.create(HOME, NewSession(task="echo", external_id=f"chat {number}"))
    await sessions.sessions.create(AWAY, NewSession(task="echo"))
    page = await sessions.sessions.list_sessions(HOME)
    assert {session.external_id for session in page.items} == {"chat 0", "chat 1", "chat 2"}
