"""What every leader lock guarantees."""

from __future__ import annotations

from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from contract.makers import at_once
from sessions_core.ports.leader_lock import LeaderLock


async def test_a_leader_works_inside_the_scope_it_is_given(leader_lock: LeaderLock) -> None:
    done = False
    async with leader_lock.hold("sweep") as scope:
        with scope:
            await checkpoint()
            done = True
    assert done
    assert not scope.cancel_called


async def test_there_is_at_most_one_leader_of_a_name(leader_lock: LeaderLock) -> None:
    leading: set[int] = set()

    async def lead(number: int) -> None:
        async with leader_lock.hold("sweep") as scope:
            with scope:
                assert not leading
                leading.add(number)
                for _ in range(3):
                    await checkpoint()
                leading.discard(number)

    await at_once([partial(lead, number) for number in range(20)])


async def test_who_comes_second_waits_until_the_first_one_leaves(leader_lock: LeaderLock) -> None:
    is_second = anyio.Event()

    async def come_second() -> None:
        async with leader_lock.hold("sweep"):
            is_second.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            async with leader_lock.hold("sweep"):
                tasks.start_soon(come_second)
                await anyio.wait_all_tasks_blocked()
                assert not is_second.is_set()
            await is_second.wait()


async def test_names_have_leaders_of_their_own(leader_lock: LeaderLock) -> None:
    with anyio.fail_after(10):
        async with leader_lock.hold("sweep"), leader_lock.hold("replication"):
            pass


async def test_a_leader_that_fails_makes_room(leader_lock: LeaderLock) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with leader_lock.hold("sweep"):
            raise ValueError("mine")
    with anyio.fail_after(10):
        async with leader_lock.hold("sweep"):
            pass


async def test_a_leader_that_is_cancelled_makes_room(leader_lock: LeaderLock) -> None:
    with anyio.CancelScope() as outer:
        async with leader_lock.hold("sweep") as scope:
            with scope:
                outer.cancel()
                await anyio.sleep_forever()
    with anyio.fail_after(10):
        async with leader_lock.hold("sweep"):
            pass


async def test_who_gives_up_waiting_does_not_stand_in_the_way(leader_lock: LeaderLock) -> None:
    async def wait_in_vain() -> None:
        async with leader_lock.hold("sweep"):
            pytest.fail("led beside another leader")

    with anyio.fail_after(10):
        async with leader_lock.hold("sweep"), anyio.create_task_group() as tasks:
            tasks.start_soon(wait_in_vain)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        async with leader_lock.hold("sweep"):
            pass


async def test_leadership_can_be_taken_again_and_again(leader_lock: LeaderLock) -> None:
    for _ in range(3):
        async with leader_lock.hold("sweep") as scope:
            with scope:
                await checkpoint()
