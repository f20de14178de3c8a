"""Waits: durable, never lost, and never woken by what the waiter knows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import pytest

from sessions_core.domain.channel import TURN_COMPLETE, Io, control_record, data_record
from sessions_core.domain.events import WaitpointCompleted
from sessions_core.domain.guard import UNTOUCHED, Guard
from sessions_core.domain.ids import EnvironmentId, PartId, RunId, WaitpointId
from sessions_core.domain.session import Session
from sessions_core.domain.waitpoint import TIMEOUT_CODE, Waitpoint, WaitpointStatus
from sessions_core.errors import InvalidError, RunNotFoundError, SessionNotFoundError, WaitpointNotFoundError
from sessions_core.facade import Sessions
from sessions_core.services.sweep import SweepConfig
from sessions_core.services.wait_service import WaitRequest
from unit.core.chats import HOME, NAME, said, say, spec
from unit.core.taps import Shuffle, Tap
from unit.core.world import World, run_virtually

AWAY = EnvironmentId("env_away")


@pytest.fixture
def world() -> World:
    return World()


def run_of(world: World) -> RunId:
    run_id = world.session().current_run_id
    assert run_id is not None
    return run_id


async def wait(world: World, sessions: Sessions, **request: Any) -> Waitpoint:
    wanted = WaitRequest(**{"session": NAME, "io": Io.IN, **request})
    created = await sessions.waits.create(HOME.id, run_of(world), wanted)
    return await sessions.waits.get(HOME.id, created.waitpoint.id)


async def again(sessions: Sessions, waitpoint: Waitpoint) -> Waitpoint:
    return await sessions.waits.get(HOME.id, waitpoint.id)


async def test_the_next_record_ends_a_wait(world: World, sessions: Sessions, session: Session) -> None:
    await say(sessions, "known")
    waitpoint = await wait(world, sessions)
    assert waitpoint.is_waiting
    assert waitpoint.after_seq == 0
    await say(sessions, "next")
    await say(sessions, "later")
    ended = await again(sessions, waitpoint)
    assert (ended.status, ended.output, ended.seq) == (WaitpointStatus.COMPLETED, said("next"), 1)
    assert [event.timed_out for event in world.observer.of(WaitpointCompleted)] == [False]


async def test_a_record_that_came_before_the_wait_ends_it_at_once(
    world: World, sessions: Sessions, session: Session
) -> None:
    for text in ("zero", "one", "two"):
        await say(sessions, text)
    ended = await wait(world, sessions, after_seq=0)
    assert (ended.output, ended.seq) == (said("one"), 1)
    assert (await wait(world, sessions, after_seq=-7)).seq == 0
    assert (await wait(world, sessions, after_seq=2)).is_waiting


async def test_commands_do_not_end_a_wait_and_control_records_do(
    world: World, sessions: Sessions, session: Session
) -> None:
    channel = session.channel(Io.OUT)
    await world.log.set_guard(channel, Guard.live(1), expect=UNTOUCHED)
    waitpoint = await wait(world, sessions, io=Io.OUT)
    for _ in range(20):
        await sessions.channels.trim(session, 0, epoch=1)
    await sessions.sweep.sweep()
    assert (await again(sessions, waitpoint)).is_waiting
    await sessions.channels.append(session, Io.OUT, [control_record(TURN_COMPLETE)], epoch=1)
    ended = await again(sessions, waitpoint)
    assert (ended.output, ended.seq) == ("", 20)


async def test_a_duplicate_never_wakes_with_its_own_body(world: World, sessions: Sessions, session: Session) -> None:
    await say(sessions, "known")
    waitpoint = await wait(world, sessions)
    await say(sessions, "known")
    assert (await again(sessions, waitpoint)).is_waiting
    both = [
        data_record("forged", PartId("known")),
        data_record(said("new"), PartId("new")),
    ]
    await sessions.channels.append(session, Io.IN, both)
    ended = await again(sessions, waitpoint)
    assert (ended.output, ended.seq) == (said("new"), 1)


async def test_a_late_wake_up_does_not_end_a_wait_with_what_the_waiter_knows(
    world: World, sessions: Sessions, session: Session
) -> None:
    """The append is stored, then the wait is created, then the append comes to waking."""
    record = data_record("known", PartId("p"))
    appended = await world.log.append(session.channel(Io.IN), [record], guard=UNTOUCHED)
    waitpoint = await wait(world, sessions)
    assert waitpoint.after_seq == 0
    await sessions.waits.wake(session.channel(Io.IN), [record], appended)
    assert (await again(sessions, waitpoint)).is_waiting
    await say(sessions, "next")
    assert (await again(sessions, waitpoint)).seq == 1, "it is still registered"


async def test_of_two_racing_appends_the_first_record_ends_the_wait(
    world: World, sessions: Sessions, session: Session
) -> None:
    channel, waitpoint = session.channel(Io.IN), await wait(world, sessions)
    records = [data_record(number, PartId(str(number))) for number in range(2)]
    appended = [await world.log.append(channel, [record], guard=UNTOUCHED) for record in records]
    await sessions.waits.wake(channel, [records[1]], appended[1])
    await sessions.waits.wake(channel, [records[0]], appended[0])
    ended = await again(sessions, waitpoint)
    assert (ended.output, ended.seq) == (0, 0)


async def test_all_who_wait_are_woken_by_one_append(world: World, sessions: Sessions, session: Session) -> None:
    waiting = [await wait(world, sessions) for _ in range(5)]
    other = await wait(world, sessions, io=Io.OUT)
    await say(sessions, "hello")
    assert [(await again(sessions, one)).seq for one in waiting] == [0] * 5
    assert (await again(sessions, other)).is_waiting


async def test_awaiting_returns_as_soon_as_it_has_ended(world: World, sessions: Sessions, session: Session) -> None:
    waitpoint = await wait(world, sessions)
    still = await sessions.waits.wait(HOME.id, waitpoint.id, timedelta(seconds=1))
    assert still.is_waiting
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(say, sessions, "hello")
        before = anyio.current_time()
        ended = await sessions.waits.wait(HOME.id, waitpoint.id, timedelta(minutes=5))
    assert ended.seq == 0
    assert anyio.current_time() == before
    assert (await sessions.waits.wait(HOME.id, waitpoint.id, timedelta())).seq == 0


async def test_the_same_unexpired_key_gives_the_same_wait(world: World, sessions: Sessions, session: Session) -> None:
    request = WaitRequest(session=NAME, io=Io.IN, idempotency_key="k", idempotency_ttl="5s")
    first = await sessions.waits.create(HOME.id, run_of(world), request)
    again = await sessions.waits.create(HOME.id, run_of(world), request)
    assert (first.is_cached, again.is_cached) == (False, True)
    assert first.waitpoint.id == again.waitpoint.id
    await anyio.sleep(6)
    assert not (await sessions.waits.create(HOME.id, run_of(world), request)).is_cached


async def test_what_a_wait_may_name(world: World, sessions: Sessions, session: Session) -> None:
    with pytest.raises(RunNotFoundError):
        await sessions.waits.create(HOME.id, RunId("run_nobody"), WaitRequest(session=NAME, io=Io.IN))
    with pytest.raises(RunNotFoundError):
        await sessions.waits.create(AWAY, run_of(world), WaitRequest(session=NAME, io=Io.IN))
    with pytest.raises(SessionNotFoundError):
        await wait(world, sessions, session="session_nobody")
    by_friendly_id = await wait(world, sessions, session=session.id)
    assert by_friendly_id.channel == session.channel(Io.IN)
    early = await wait(world, sessions, session="not yet")
    await sessions.sessions.create(HOME, spec(name="not yet"))
    await say(sessions, "hello", name="not yet")
    assert (await again(sessions, early)).seq == 0
    with pytest.raises(WaitpointNotFoundError):
        await sessions.waits.get(AWAY, early.id)
    with pytest.raises(WaitpointNotFoundError):
        await sessions.waits.wait(HOME.id, WaitpointId("waitpoint_nobody"), timedelta(seconds=1))


@pytest.mark.parametrize(
    ("request_", "field"),
    [({"idempotency_key": "k" * 2049}, "idempotencyKey"), ({"tags": ["t"] * 11}, "tags"), ({"tags": [1]}, "tags[0]")],
)
def test_a_wrong_request_names_its_field(request_: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        WaitRequest(**{"session": NAME, "io": Io.IN, **request_})
    assert caught.value.field == field


# --- Time and loss --------------------------------------------------------------------------------


async def test_the_sweep_lets_waits_time_out_although_their_creator_is_gone(
    world: World, sessions: Sessions, session: Session
) -> None:
    short = await wait(world, sessions, timeout="10s")
    unlimited = await wait(world, sessions, timeout="gibberish")
    await anyio.sleep(9)
    fresh = world.sessions()
    await fresh.sweep.sweep()
    assert (await again(fresh, short)).is_waiting
    await anyio.sleep(1)
    assert await fresh.sweep.sweep() == 1
    ended = await again(fresh, short)
    assert ended.status is WaitpointStatus.TIMED_OUT
    assert ended.output["code"] == TIMEOUT_CODE
    await say(sessions, "too late")
    assert await again(fresh, short) == ended
    assert (await again(fresh, unlimited)).seq == 0


async def test_a_record_that_came_in_time_counts_although_its_wake_up_was_lost(
    world: World, sessions: Sessions, session: Session
) -> None:
    waitpoint = await wait(world, sessions, timeout="5s")
    await world.registry.drain(session.channel(Io.IN))
    await say(sessions, "hello")
    assert (await again(sessions, waitpoint)).is_waiting
    await anyio.sleep(6)
    await sessions.sweep.sweep()
    assert (await again(sessions, waitpoint)).seq == 0


async def test_a_lost_registry_is_made_up_for_by_the_sweep(world: World, sessions: Sessions, session: Session) -> None:
    missed, coming = await wait(world, sessions), await wait(world, sessions, io=Io.OUT)
    await world.registry.drain(session.channel(Io.IN))
    await world.registry.drain(session.channel(Io.OUT))
    await say(sessions, "hello")
    await sessions.sweep.sweep()
    assert (await again(sessions, missed)).seq == 0
    await sessions.channels.append_text(session, Io.OUT, "x")
    assert (await again(sessions, coming)).seq == 0, "the sweep has registered it again"


async def test_the_sweep_walks_over_more_waits_than_fit_a_batch(
    world: World, sessions: Sessions, session: Session
) -> None:
    waiting = [await wait(world, sessions) for _ in range(7)]
    await world.registry.drain(session.channel(Io.IN))
    await say(sessions, "hello")
    sessions.sweep.config = SweepConfig(batch=2)
    for _ in range(5):
        await sessions.sweep.sweep()
    assert [(await again(sessions, one)).seq for one in waiting] == [0] * 7


async def test_a_shorter_wait_does_not_shorten_a_longer_one(world: World, sessions: Sessions, session: Session) -> None:
    longer = await wait(world, sessions, timeout="1h")
    await wait(world, sessions, timeout="1s")
    await anyio.sleep(60)
    await say(sessions, "hello")
    assert (await again(sessions, longer)).seq == 0


async def test_closing_wakes_those_who_wait(world: World, sessions: Sessions, session: Session) -> None:
    on_in, on_out = await wait(world, sessions), await wait(world, sessions, io=Io.OUT)
    await sessions.sessions.close(HOME.id, NAME)
    assert '"close"' in (await again(sessions, on_in)).output
    assert not (await again(sessions, on_out)).is_waiting


class Forgetful(Tap):
    """Loses what the registry knows, now and then."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng

    async def after(self, call: str) -> None:
        if call.startswith("WaitRegistry") and self.rng.random() < 0.3:
            channel = self.world.session().channel(Io.IN)
            await self.world.registry.drain(channel)


async def chain_of_waits(seed: int, *, loses: bool) -> None:
    """Let an agent wait again and again, each time after the seq that the last wait gave, while others append."""
    rng = random.Random(seed)
    world = World()
    sessions = world.sessions(Forgetful(world, rng) if loses else Shuffle(rng))
    await sessions.sessions.create(HOME, spec())
    seen: list[tuple[int, str]] = []

    async def wait_for_all() -> None:
        after = -1
        while len(seen) < 12:
            waitpoint = await wait(world, sessions, after_seq=after)
            ended = await sessions.waits.wait(HOME.id, waitpoint.id, timedelta(seconds=100))
            assert ended.seq is not None, f"lost a wake-up after {after}"
            seen.append((ended.seq, ended.output))
            after = ended.seq

    async def append(numbers: Sequence[int]) -> None:
        for number in numbers:
            await anyio.sleep(rng.choice((0, 0, 0.01, 0.5)))
            await say(sessions, f"m{number}")

    async def sweep() -> None:
        while loses:
            await anyio.sleep(5)
            await sessions.sweep.sweep()

    async with anyio.create_task_group() as background:
        background.start_soon(sweep)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_all)
            for client in range(3):
                tasks.start_soon(append, range(client * 4, client * 4 + 4))
        background.cancel_scope.cancel()
    assert [seq for seq, _ in seen] == list(range(12))
    assert {text for _, text in seen} == {said(f"m{number}") for number in range(12)}


@pytest.mark.parametrize("loses", [False, True])
def test_no_wake_up_is_lost_and_none_skips_a_record_in_any_order(loses: bool) -> None:
    for seed in range(40):
        run_virtually(partial(chain_of_waits, seed, loses=loses))
