"""Random calls to a registry of waits, compared with what it must still know and what it may.

A registry may keep members longer than it was asked to; so a drain gives all that must be there, and none that was
never registered or has been taken out.
"""

from __future__ import annotations

from datetime import datetime

import attrs
import pytest
from anyio.from_thread import BlockingPortal
from hypothesis import strategies as st
from hypothesis.stateful import rule

from contract.adapters import Case, cases_with
from contract.machines import AdapterMachine, run_machine
from contract.makers import SECOND, START, make_channel
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.ids import WaitpointId

CHANNELS = [make_channel(io=Io.IN), make_channel(io=Io.OUT), make_channel(io=Io.IN, env="env_b")]
channels = st.sampled_from(CHANNELS)
ids = st.sampled_from([WaitpointId(f"waitpoint_{name}") for name in "abcd"])


@attrs.define
class Members:
    """Of one channel: those who may still be there, those who must be, and until when."""

    possible: set[WaitpointId] = attrs.field(factory=set)
    certain: set[WaitpointId] = attrs.field(factory=set)
    kept_until: datetime = START

    def forget(self, now: datetime) -> None:
        """Nothing is certain any more from the last moment on."""
        if self.kept_until <= now:
            self.certain.clear()


class WaitRegistryMachine(AdapterMachine):
    def __init__(self, case: Case, portal: BlockingPortal) -> None:
        super().__init__(case, portal)
        assert self.adapters.wait_registry is not None
        self.registry = self.adapters.wait_registry
        self.expected = {channel: Members() for channel in CHANNELS}

    @rule(channel=channels, member=ids, keep=st.integers(1, 6))
    def register(self, channel: Channel, member: WaitpointId, keep: int) -> None:
        self.answer(self.registry.register, channel, member, keep * SECOND)
        members, now = self.expected[channel], self.clock.now()
        members.forget(now)
        members.kept_until = max(members.kept_until, now + keep * SECOND)
        members.possible.add(member)
        members.certain.add(member)

    @rule(channel=channels, member=ids)
    def unregister(self, channel: Channel, member: WaitpointId) -> None:
        self.answer(self.registry.unregister, channel, member)
        self.expected[channel].possible.discard(member)
        self.expected[channel].certain.discard(member)

    @rule(channel=channels)
    def drain(self, channel: Channel) -> None:
        drained = list(self.answer(self.registry.drain, channel))
        members, self.expected[channel] = self.expected[channel], Members()
        members.forget(self.clock.now())
        assert len(drained) == len(set(drained))
        assert members.certain <= set(drained) <= members.possible

    @rule(by=st.integers(1, 3))
    def move_the_clock(self, by: int) -> None:
        self.clock.advance(by * SECOND)


@pytest.mark.parametrize("subject", cases_with(["wait_registry"], backends=["asyncio"]), ids=str)
def test_a_registry_of_waits_does_what_sets_do(subject: Case) -> None:
    run_machine(WaitRegistryMachine, subject)
