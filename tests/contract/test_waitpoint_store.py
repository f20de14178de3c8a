"""What every store of waitpoints guarantees."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import attrs
import pytest

from contract.makers import ENV_A, ENV_B, MILLISECOND, SECOND, START, Call, at_once, make_channel, make_waitpoint
from sessions_core.domain.channel import Io
from sessions_core.domain.ids import WaitpointId
from sessions_core.domain.waitpoint import Completion, Waitpoint, WaitpointStatus, timeout_of
from sessions_core.errors import WaitpointNotFoundError
from sessions_core.ports.waitpoint_store import WaitpointStore
from sessions_core.testing import ManualClock

UNKNOWN = WaitpointId("waitpoint_unknown")
DONE = Completion(WaitpointStatus.COMPLETED, "hello", 7)
IN_B = make_channel(env="env_b", io=Io.IN)


def keyed(name: str, **members: Any) -> Waitpoint:
    return make_waitpoint(name, **({"idempotency_key": "key"} | members))


# --- create and find ---


@pytest.mark.parametrize(
    "members",
    [
        {},
        {
            "channel": make_channel("ä/b", io=Io.OUT, name="side"),
            "after_seq": 41,
            "expires_at": START + SECOND,
            "idempotency_key": "ü" * 2048,
            "idempotency_expires_at": START + 2 * SECOND,
            "tags": ("b", "a", "b"),
        },
    ],
    ids=["plain", "rich"],
)
async def test_a_new_waitpoint_comes_back_as_it_was_given(
    waitpoint_store: WaitpointStore, members: dict[str, Any]
) -> None:
    waitpoint = make_waitpoint(**members)
    creation = await waitpoint_store.create(waitpoint)
    assert (creation.waitpoint, creation.is_cached) == (waitpoint, False)
    assert await waitpoint_store.find(ENV_A.id, waitpoint.id) == waitpoint


async def test_another_environment_does_not_find_it(waitpoint_store: WaitpointStore) -> None:
    waitpoint = make_waitpoint()
    await waitpoint_store.create(waitpoint)
    assert await waitpoint_store.find(ENV_B.id, waitpoint.id) is None
    assert await waitpoint_store.find(ENV_A.id, UNKNOWN) is None


async def test_the_same_idempotency_key_gets_the_first_waitpoint(
    waitpoint_store: WaitpointStore, clock: ManualClock
) -> None:
    first = keyed("first", idempotency_expires_at=START + SECOND)
    await waitpoint_store.create(first)
    clock.advance(SECOND - MILLISECOND)
    creation = await waitpoint_store.create(keyed("second"))
    assert (creation.waitpoint, creation.is_cached) == (first, True)
    assert await waitpoint_store.find(ENV_A.id, WaitpointId("waitpoint_second")) is None


async def test_an_expired_idempotency_key_is_free_again(waitpoint_store: WaitpointStore, clock: ManualClock) -> None:
    await waitpoint_store.create(keyed("first", idempotency_expires_at=START + SECOND))
    clock.advance(SECOND)
    second = keyed("second", idempotency_expires_at=START + 2 * SECOND)
    assert not (await waitpoint_store.create(second)).is_cached
    third = await waitpoint_store.create(keyed("third"))
    assert (third.waitpoint, third.is_cached) == (second, True)
    first = await waitpoint_store.find(ENV_A.id, WaitpointId("waitpoint_first"))
    assert first is not None
    assert first.is_waiting


async def test_an_idempotency_key_without_an_end_lasts(waitpoint_store: WaitpointStore, clock: ManualClock) -> None:
    await waitpoint_store.create(keyed("first"))
    clock.advance(timedelta(days=10_000))
    assert (await waitpoint_store.create(keyed("second"))).is_cached


async def test_an_ended_waitpoint_still_holds_its_key(waitpoint_store: WaitpointStore) -> None:
    first = keyed("first")
    await waitpoint_store.create(first)
    await waitpoint_store.complete(first.id, DONE)
    creation = await waitpoint_store.create(keyed("second"))
    assert creation.is_cached
    assert creation.waitpoint == await waitpoint_store.find(ENV_A.id, first.id)


async def test_idempotency_keys_belong_to_their_environment(waitpoint_store: WaitpointStore) -> None:
    assert not (await waitpoint_store.create(keyed("a"))).is_cached
    assert not (await waitpoint_store.create(keyed("b", channel=IN_B))).is_cached


async def test_waitpoints_without_a_key_or_with_other_keys_are_others(waitpoint_store: WaitpointStore) -> None:
    for name, key in (("a", None), ("b", None), ("c", "key"), ("d", "KEY"), ("e", "")):
        assert not (await waitpoint_store.create(make_waitpoint(name, idempotency_key=key))).is_cached
    assert (await waitpoint_store.create(make_waitpoint("f", idempotency_key=""))).is_cached


async def test_of_30_concurrent_creates_with_one_key_one_is_new(waitpoint_store: WaitpointStore) -> None:
    creations = await at_once([partial(waitpoint_store.create, keyed(f"{n}")) for n in range(30)])
    (winner,) = (creation for creation in creations if not creation.is_cached)
    assert {creation.waitpoint.id for creation in creations} == {winner.waitpoint.id}


# --- complete ---


@pytest.mark.parametrize("output", ["text", "", None, 0, False, [], {"ä": [1.5, None, "\U0001f980"]}], ids=repr)
async def test_a_completion_is_kept(waitpoint_store: WaitpointStore, clock: ManualClock, output: Any) -> None:
    waitpoint = make_waitpoint()
    await waitpoint_store.create(waitpoint)
    clock.advance(SECOND)
    assert await waitpoint_store.complete(waitpoint.id, Completion(WaitpointStatus.COMPLETED, output, 0))
    assert await waitpoint_store.find(ENV_A.id, waitpoint.id) == attrs.evolve(
        waitpoint, status=WaitpointStatus.COMPLETED, output=output, seq=0, completed_at=clock.now()
    )


async def test_a_timeout_is_kept(waitpoint_store: WaitpointStore) -> None:
    waitpoint = make_waitpoint(expires_at=START)
    await waitpoint_store.create(waitpoint)
    assert await waitpoint_store.complete(waitpoint.id, timeout_of(waitpoint))
    found = await waitpoint_store.find(ENV_A.id, waitpoint.id)
    assert found is not None
    assert (found.status, found.output, found.seq) == (WaitpointStatus.TIMED_OUT, timeout_of(waitpoint).output, None)


async def test_a_second_completion_changes_nothing(waitpoint_store: WaitpointStore, clock: ManualClock) -> None:
    waitpoint = make_waitpoint()
    await waitpoint_store.create(waitpoint)
    await waitpoint_store.complete(waitpoint.id, DONE)
    ended = await waitpoint_store.find(ENV_A.id, waitpoint.id)
    clock.advance(SECOND)
    assert not await waitpoint_store.complete(waitpoint.id, timeout_of(waitpoint))
    assert await waitpoint_store.find(ENV_A.id, waitpoint.id) == ended


async def test_an_unknown_waitpoint_is_not_completed(waitpoint_store: WaitpointStore) -> None:
    assert not await waitpoint_store.complete(UNKNOWN, DONE)


async def test_of_30_concurrent_completions_one_counts(waitpoint_store: WaitpointStore) -> None:
    waitpoint = make_waitpoint()
    await waitpoint_store.create(waitpoint)
    ends = [Completion(WaitpointStatus.COMPLETED, f"{n}", n) for n in range(30)]
    done = await at_once([partial(waitpoint_store.complete, waitpoint.id, end) for end in ends])
    assert sum(done) == 1
    found = await waitpoint_store.find(ENV_A.id, waitpoint.id)
    assert found is not None
    assert (found.seq, found.output) == (done.index(True), str(done.index(True)))


# --- wait ---


async def test_waiting_for_an_ended_waitpoint_returns_at_once(waitpoint_store: WaitpointStore) -> None:
    waitpoint = make_waitpoint()
    await waitpoint_store.create(waitpoint)
    await waitpoint_store.complete(waitpoint.id, DONE)
    with anyio.fail_after(10):
        ended = await waitpoint_store.wait(ENV_A.id, waitpoint.id)
    assert ended == await waitpoint_store.find(ENV_A.id, waitpoint.id)
    assert ended.output == "hello"


async def test_all_who_wait_are_woken_by_the_end(waitpoint_store: WaitpointStore) -> None:
    waitpoint = make_waitpoint()
    await waitpoint_store.create(waitpoint)
    woken: list[Waitpoint] = []

    async def wait() -> None:
        woken.append(await waitpoint_store.wait(ENV_A.id, waitpoint.id))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert woken == []
            await waitpoint_store.complete(waitpoint.id, DONE)
    assert [ended.seq for ended in woken] == [7] * 5


async def test_no_wake_up_is_lost_between_looking_and_waiting(waitpoint_store: WaitpointStore) -> None:
    async def wait_and_complete(number: int) -> None:
        waitpoint = make_waitpoint(f"{number}")
        await waitpoint_store.create(waitpoint)
        waiting = partial(waitpoint_store.wait, ENV_A.id, waitpoint.id)
        calls: list[Call] = [waiting, partial(waitpoint_store.complete, waitpoint.id, DONE), waiting]
        await at_once(calls)

    await at_once([partial(wait_and_complete, number) for number in range(30)])


async def test_the_end_of_another_waitpoint_wakes_nobody(waitpoint_store: WaitpointStore) -> None:
    mine, other = make_waitpoint("mine"), make_waitpoint("other")
    for waitpoint in (mine, other):
        await waitpoint_store.create(waitpoint)
    woken: list[Waitpoint] = []

    async def wait() -> None:
        woken.append(await waitpoint_store.wait(ENV_A.id, mine.id))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await waitpoint_store.complete(other.id, DONE)
            await anyio.wait_all_tasks_blocked()
            assert woken == []
            await waitpoint_store.complete(mine.id, DONE)
    assert [ended.id for ended in woken] == [mine.id]


async def test_who_gives_up_waiting_does_not_hinder_the_others(waitpoint_store: WaitpointStore) -> None:
    waitpoint = make_waitpoint()
    await waitpoint_store.create(waitpoint)
    waiting = partial(waitpoint_store.wait, ENV_A.id, waitpoint.id)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting)
            async with anyio.create_task_group() as impatient:
                impatient.start_soon(waiting)
                await anyio.wait_all_tasks_blocked()
                impatient.cancel_scope.cancel()
            await waitpoint_store.complete(waitpoint.id, DONE)


async def test_nobody_waits_for_what_his_environment_does_not_have(waitpoint_store: WaitpointStore) -> None:
    waitpoint = make_waitpoint()
    await waitpoint_store.create(waitpoint)
    for environment, name in ((ENV_B, waitpoint.id), (ENV_A, UNKNOWN)):
        with pytest.raises(WaitpointNotFoundError):
            await waitpoint_store.wait(environment.id, name)


# --- lists ---


async def test_waiting_waitpoints_of_all_environments_are_listed_by_id(waitpoint_store: WaitpointStore) -> None:
    waitpoints = [make_waitpoint(name, channel=IN_B if name in "bd" else None) for name in "ebadc"]
    for waitpoint in waitpoints:
        await waitpoint_store.create(waitpoint)
    await waitpoint_store.complete(WaitpointId("waitpoint_c"), DONE)
    in_order = sorted((w for w in waitpoints if not w.id.endswith("c")), key=lambda waitpoint: waitpoint.id)
    assert await waitpoint_store.list_waiting(None, 10) == in_order
    assert await waitpoint_store.list_waiting(None, 2) == in_order[:2]
    assert await waitpoint_store.list_waiting(in_order[1].id, 10) == in_order[2:]
    assert await waitpoint_store.list_waiting(WaitpointId("waitpoint_c"), 1) == in_order[2:3]
    assert await waitpoint_store.list_waiting(in_order[-1].id, 10) == []


async def test_a_walk_in_steps_sees_every_waiting_waitpoint_once(waitpoint_store: WaitpointStore) -> None:
    for number in range(10):
        await waitpoint_store.create(make_waitpoint(f"{number}"))
    seen: list[WaitpointId] = []
    while page := await waitpoint_store.list_waiting(seen[-1] if seen else None, 3):
        seen.extend(waitpoint.id for waitpoint in page)
    assert seen == [f"waitpoint_{number}" for number in range(10)]


async def test_who_waits_on_a_channel_is_listed_by_id_and_nobody_else(waitpoint_store: WaitpointStore) -> None:
    mine = make_channel("ä/b")
    others = [
        make_channel("ä/b", env="env_b"),
        make_channel("ä"),
        make_channel("ä/b", io=Io.IN),
        make_channel("ä/b", name="side"),
        make_channel("ä/b", name=""),
    ]
    waitpoints = [make_waitpoint(name, channel=mine, expires_at=START) for name in "cadb"]
    for waitpoint in (*waitpoints, *(make_waitpoint(f"x{n}", channel=other) for n, other in enumerate(others))):
        await waitpoint_store.create(waitpoint)
    await waitpoint_store.complete(WaitpointId("waitpoint_c"), DONE)
    in_order = sorted((w for w in waitpoints if not w.id.endswith("c")), key=lambda waitpoint: waitpoint.id)
    assert await waitpoint_store.list_waiting_on(mine, 10) == in_order
    assert await waitpoint_store.list_waiting_on(mine, 2) == in_order[:2]
    for number, other in enumerate(others):
        assert [w.id for w in await waitpoint_store.list_waiting_on(other, 10)] == [f"waitpoint_x{number}"]
    assert await waitpoint_store.list_waiting_on(make_channel("nobody"), 10) == []


async def test_a_waiting_waitpoint_is_due_from_its_time_on(waitpoint_store: WaitpointStore, clock: ManualClock) -> None:
    due = make_waitpoint("due", expires_at=START + SECOND)
    later = make_waitpoint("later", expires_at=START + 2 * SECOND, channel=IN_B)
    for waitpoint in (make_waitpoint("endless"), later, due):
        await waitpoint_store.create(waitpoint)
    clock.advance(SECOND - MILLISECOND)
    assert await waitpoint_store.list_due(10) == []
    clock.advance(MILLISECOND)
    assert await waitpoint_store.list_due(10) == [due]
    clock.advance(SECOND)
    assert sorted(waitpoint.id for waitpoint in await waitpoint_store.list_due(10)) == [due.id, later.id]
    assert len(await waitpoint_store.list_due(1)) == 1
    await waitpoint_store.complete(due.id, timeout_of(due))
    assert await waitpoint_store.list_due(10) == [later]
