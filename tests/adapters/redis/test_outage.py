"""Sessions over a Redis that is killed under load: nothing fails, wake-ups only come later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import anyio
import attrs
import pytest

from harness.redis import RedisServer
from sessions_adapters.redis import RedisWaitRegistry
from sessions_core.domain.channel import Io
from sessions_core.domain.events import SystemFailed
from sessions_core.domain.ids import RunId, WaitpointId
from sessions_core.facade import Sessions
from sessions_core.services.wait_service import WaitRequest
from unit.core.chats import HOME, NAME, say, spec
from unit.core.world import World

pytestmark = pytest.mark.needs_redis

LONG = timedelta(seconds=20)


@attrs.define
class Waiter:
    """A run that waits for one record after the other."""

    sessions: Sessions
    run_id: RunId
    seen: list[int] = attrs.field(factory=list)

    async def begin(self) -> WaitpointId:
        after = self.seen[-1] if self.seen else -1
        request = WaitRequest(session=NAME, io=Io.IN, after_seq=after)
        return (await self.sessions.waits.create(HOME.id, self.run_id, request)).waitpoint.id

    async def wait(self, times: int) -> None:
        for _ in range(times):
            ended = await self.sessions.waits.wait(HOME.id, await self.begin(), LONG)
            assert ended.seq is not None, f"nobody was woken after {self.seen}"
            self.seen.append(ended.seq)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def sessions(world: World, registry: RedisWaitRegistry) -> AsyncIterator[Sessions]:
    sessions = world.sessions(wait_registry=registry)
    await sessions.sessions.create(HOME, spec())
    async with sessions.running():
        yield sessions


@pytest.fixture
def waiter(world: World, sessions: Sessions) -> Waiter:
    return Waiter(sessions, world.runs()[0].id)


async def test_appends_and_waits_go_on_while_redis_is_killed_and_restarted(
    world: World, sessions: Sessions, waiter: Waiter, server: RedisServer
) -> None:
    async def say_much(writer: int) -> None:
        for number in range(10):
            await say(sessions, f"{writer}/{number}")
            await anyio.sleep(0.05)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiter.wait, 40)
        for writer in range(4):
            tasks.start_soon(say_much, writer)
        await anyio.sleep(0.1)
        server.kill()
        await anyio.sleep(0.5)
        server.start()
    assert waiter.seen == list(range(40))
    assert world.observer.of(SystemFailed)


async def test_a_wait_that_began_without_redis_is_ended_by_the_sweep(
    sessions: Sessions, waiter: Waiter, server: RedisServer
) -> None:
    server.kill()
    waitpoint = await waiter.begin()
    await say(sessions, "hello")
    assert (await sessions.waits.wait(HOME.id, waitpoint, LONG)).seq == 0


async def test_a_record_stored_by_another_process_wakes_at_once(
    world: World, waiter: Waiter, registry: RedisWaitRegistry
) -> None:
    other = world.sessions(wait_registry=registry)
    waitpoint = await waiter.begin()
    await say(other, "hello")
    assert (await other.waits.get(HOME.id, waitpoint)).seq == 0, "without waiting for the sweep"
