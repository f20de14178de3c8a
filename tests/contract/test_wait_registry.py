"""What every registry of waits guarantees."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from contract.makers import MILLISECOND, SECOND, at_once, make_channel
from sessions_core.domain.channel import Io
from sessions_core.domain.ids import WaitpointId
from sessions_core.ports.waitpoint_store import WaitRegistry
from sessions_core.testing import ManualClock

CHANNEL = make_channel(io=Io.IN)
ONE, TWO = WaitpointId("waitpoint_one"), WaitpointId("waitpoint_two")
LONG = timedelta(days=7)


async def test_a_drain_takes_all_members_out(wait_registry: WaitRegistry) -> None:
    await wait_registry.register(CHANNEL, ONE, LONG)
    await wait_registry.register(CHANNEL, TWO, LONG)
    assert set(await wait_registry.drain(CHANNEL)) == {ONE, TWO}
    assert list(await wait_registry.drain(CHANNEL)) == []


async def test_a_channel_that_nobody_waits_on_has_no_members(wait_registry: WaitRegistry) -> None:
    assert list(await wait_registry.drain(CHANNEL)) == []


async def test_a_member_that_registers_twice_is_one_member(wait_registry: WaitRegistry) -> None:
    await wait_registry.register(CHANNEL, ONE, LONG)
    await wait_registry.register(CHANNEL, ONE, LONG)
    assert list(await wait_registry.drain(CHANNEL)) == [ONE]


async def test_members_can_register_again_after_a_drain(wait_registry: WaitRegistry) -> None:
    await wait_registry.register(CHANNEL, ONE, LONG)
    await wait_registry.drain(CHANNEL)
    await wait_registry.register(CHANNEL, TWO, LONG)
    assert list(await wait_registry.drain(CHANNEL)) == [TWO]


async def test_channels_do_not_share_members(wait_registry: WaitRegistry) -> None:
    others = [
        make_channel(io=Io.OUT),
        make_channel(io=Io.IN, name="side"),
        make_channel("other", io=Io.IN),
        make_channel(io=Io.IN, env="env_b"),
    ]
    await wait_registry.register(CHANNEL, ONE, LONG)
    assert [list(await wait_registry.drain(other)) for other in others] == [[]] * 4
    assert list(await wait_registry.drain(CHANNEL)) == [ONE]


async def test_of_20_racing_drains_only_one_gets_a_member(wait_registry: WaitRegistry) -> None:
    members = [WaitpointId(f"waitpoint_{n}") for n in range(10)]
    for member in members:
        await wait_registry.register(CHANNEL, member, LONG)
    drained = await at_once([partial(wait_registry.drain, CHANNEL) for _ in range(20)])
    assert sorted(member for part in drained for member in part) == members


async def test_drains_that_race_with_registrations_lose_nobody(wait_registry: WaitRegistry) -> None:
    members = [WaitpointId(f"waitpoint_{n}") for n in range(10)]
    drained: list[WaitpointId] = []

    async def register_and_drain(member: WaitpointId) -> None:
        await wait_registry.register(CHANNEL, member, LONG)
        drained.extend(await wait_registry.drain(CHANNEL))

    await at_once([partial(register_and_drain, member) for member in members])
    assert sorted(drained) == members


async def test_members_are_kept_as_long_as_asked(wait_registry: WaitRegistry, clock: ManualClock) -> None:
    await wait_registry.register(CHANNEL, ONE, SECOND)
    clock.advance(SECOND - MILLISECOND)
    assert list(await wait_registry.drain(CHANNEL)) == [ONE]


async def test_a_shorter_wait_never_shortens_a_longer_one(wait_registry: WaitRegistry, clock: ManualClock) -> None:
    await wait_registry.register(CHANNEL, ONE, LONG)
    await wait_registry.register(CHANNEL, TWO, SECOND)
    clock.advance(LONG - SECOND)
    assert ONE in await wait_registry.drain(CHANNEL)


async def test_a_longer_wait_lengthens_a_shorter_one(wait_registry: WaitRegistry, clock: ManualClock) -> None:
    await wait_registry.register(CHANNEL, ONE, SECOND)
    await wait_registry.register(CHANNEL, TWO, LONG)
    clock.advance(LONG - SECOND)
    assert set(await wait_registry.drain(CHANNEL)) == {ONE, TWO}


async def test_a_member_can_be_taken_out(wait_registry: WaitRegistry) -> None:
    await wait_registry.register(CHANNEL, ONE, LONG)
    await wait_registry.register(CHANNEL, TWO, LONG)
    await wait_registry.unregister(CHANNEL, ONE)
    assert list(await wait_registry.drain(CHANNEL)) == [TWO]


async def test_taking_out_who_is_not_there_changes_nothing(wait_registry: WaitRegistry) -> None:
    await wait_registry.unregister(CHANNEL, ONE)
    await wait_registry.register(CHANNEL, ONE, LONG)
    await wait_registry.unregister(CHANNEL, TWO)
    await wait_registry.unregister(make_channel(io=Io.OUT), ONE)
    assert list(await wait_registry.drain(CHANNEL)) == [ONE]
