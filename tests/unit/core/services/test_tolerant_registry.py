"""A registry of waits that fails: nobody notices but the observer, and those who are woken later."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import attrs
import pytest

from sessions_adapters.memory import InMemoryWaitRegistry
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.events import SystemFailed
from sessions_core.domain.ids import AddressingKey, EnvironmentId, WaitpointId
from sessions_core.domain.session import Session
from sessions_core.domain.waitpoint import TIMEOUT_CODE
from sessions_core.errors import WaitRegistryUnavailableError
from sessions_core.facade import Sessions
from sessions_core.ports.waitpoint_store import WaitRegistry
from sessions_core.services.tolerant_registry import TolerantWaitRegistry
from sessions_core.services.wait_service import WaitRequest
from unit.core.chats import HOME, NAME, say, spec
from unit.core.world import LoopClock, Notebook, World

CHANNEL = Channel(EnvironmentId("env"), AddressingKey("key"), Io.IN)
ONE = WaitpointId("waitpoint_one")
KEEP = timedelta(days=1)


@attrs.define
class FailingRegistry(WaitRegistry):
    """Gives no answer while it is down, after a while.

    Attributes:
        calls: How often it was asked.
    """

    inner: WaitRegistry
    is_down: bool = True
    hangs: float = 0.0
    calls: int = 0

    async def register(self, channel: Channel, waitpoint_id: WaitpointId, keep: timedelta) -> None:
        await self._answer()
        await self.inner.register(channel, waitpoint_id, keep)

    async def drain(self, channel: Channel) -> Sequence[WaitpointId]:
        await self._answer()
        return await self.inner.drain(channel)

    async def unregister(self, channel: Channel, waitpoint_id: WaitpointId) -> None:
        await self._answer()
        await self.inner.unregister(channel, waitpoint_id)

    async def _answer(self) -> None:
        self.calls += 1
        if self.is_down:
            await anyio.sleep(self.hangs)
            raise WaitRegistryUnavailableError


@pytest.fixture
def failing() -> FailingRegistry:
    return FailingRegistry(InMemoryWaitRegistry(LoopClock()))


@pytest.fixture
def observer() -> Notebook:
    return Notebook()


@pytest.fixture
def registry(failing: FailingRegistry, observer: Notebook) -> TolerantWaitRegistry:
    return TolerantWaitRegistry(failing, observer)


async def test_while_it_answers_everything_is_handed_on(
    registry: TolerantWaitRegistry, failing: FailingRegistry, observer: Notebook
) -> None:
    failing.is_down = False
    await registry.register(CHANNEL, ONE, KEEP)
    await registry.unregister(CHANNEL, ONE)
    await registry.register(CHANNEL, ONE, KEEP)
    assert list(await registry.drain(CHANNEL)) == [ONE]
    assert observer.events == []


@pytest.mark.parametrize(
    ("method", "arguments", "step"),
    [
        ("register", (CHANNEL, ONE, KEEP), "register wait"),
        ("drain", (CHANNEL,), "drain waits"),
        ("unregister", (CHANNEL, ONE), "unregister wait"),
    ],
)
async def test_a_failure_is_told_and_goes_no_further(
    registry: TolerantWaitRegistry, observer: Notebook, method: str, arguments: tuple[Any, ...], step: str
) -> None:
    assert await getattr(registry, method)(*arguments) in (None, ())
    [event] = observer.of(SystemFailed)
    assert (event.step, event.error) == (step, "The wait registry is unavailable; try again")


async def test_after_a_failure_it_is_left_alone_for_a_moment(
    registry: TolerantWaitRegistry, failing: FailingRegistry
) -> None:
    for _ in range(100):
        await registry.drain(CHANNEL)
    assert failing.calls == 1
    failing.is_down = False
    await anyio.sleep(1)
    await registry.register(CHANNEL, ONE, KEEP)
    assert list(await registry.drain(CHANNEL)) == [ONE]


async def test_only_one_call_at_a_time_tries_again(registry: TolerantWaitRegistry, failing: FailingRegistry) -> None:
    failing.hangs = 0.5
    await registry.drain(CHANNEL)
    await anyio.sleep(1)
    start = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(registry.drain, CHANNEL)
        await anyio.sleep(0.1)
        for _ in range(50):
            await registry.drain(CHANNEL)
        assert anyio.current_time() - start == pytest.approx(0.1), "the others pass it by"
    assert failing.calls == 2


async def test_what_is_no_outage_is_not_swallowed(registry: TolerantWaitRegistry, failing: FailingRegistry) -> None:
    failing.inner = None  # type: ignore[assignment]
    failing.is_down = False
    with pytest.raises(AttributeError):
        await registry.drain(CHANNEL)


# --- what it is good for ---


@pytest.fixture
def world(failing: FailingRegistry) -> World:
    return World()


@asynccontextmanager
async def served(world: World, failing: FailingRegistry) -> AsyncGenerator[tuple[Sessions, Session]]:
    sessions = world.sessions(wait_registry=failing)
    created = await sessions.sessions.create(HOME, spec())
    async with sessions.running():
        yield sessions, created.session


async def begin_wait(sessions: Sessions, session: Session, **request: Any) -> WaitpointId:
    assert session.current_run_id is not None
    wanted = WaitRequest(session=NAME, io=Io.IN, **request)
    return (await sessions.waits.create(HOME.id, session.current_run_id, wanted)).waitpoint.id


async def test_appends_and_waits_go_on_without_a_registry(world: World, failing: FailingRegistry) -> None:
    async with served(world, failing) as (sessions, session):
        waitpoint = await begin_wait(sessions, session)
        assert await say(sessions, "hello") == 0
        ended = await sessions.waits.wait(HOME.id, waitpoint, timedelta(seconds=3))
        assert ended.seq == 0, "the sweep has found it"
    assert world.observer.of(SystemFailed)


async def test_a_wait_times_out_without_a_registry(world: World, failing: FailingRegistry) -> None:
    async with served(world, failing) as (sessions, session):
        waitpoint = await begin_wait(sessions, session, timeout="5s")
        ended = await sessions.waits.wait(HOME.id, waitpoint, timedelta(seconds=8))
        assert ended.output["code"] == TIMEOUT_CODE


async def test_wake_ups_are_quick_again_once_the_registry_is_back(world: World, failing: FailingRegistry) -> None:
    async with served(world, failing) as (sessions, session):
        waitpoint = await begin_wait(sessions, session)
        failing.is_down = False
        await anyio.sleep(3)
        await say(sessions, "hello")
        assert not (await sessions.waits.get(HOME.id, waitpoint)).is_waiting
