"""Candidates who come, leave, fail and give up in any order: never two leaders of a name, and never none for long."""

from __future__ import annotations

from concurrent.futures import Future

import anyio
import attrs
import pytest
from anyio.from_thread import BlockingPortal
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from contract.adapters import Case, cases_with
from contract.machines import AdapterMachine, run_machine
from sessions_core.ports.leader_lock import LeaderLock

NAMES = ["sweep", "replication"]
names = st.sampled_from(NAMES)
MOST = 6


class OwnError(Exception):
    """What a leader may die of."""


@attrs.define(eq=False)
class Candidate:
    """Leads, once it may, until it is told to leave or to fail."""

    fails: bool = attrs.field(init=False, default=False)
    may_go: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    future: Future[None] = attrs.field(init=False, factory=Future)


@attrs.define(eq=False)
class Office:
    """Who leads a name at this moment, and who would like to."""

    lock: LeaderLock
    name: str
    leading: list[Candidate] = attrs.field(init=False, factory=list)
    candidates: list[Candidate] = attrs.field(init=False, factory=list)
    most_leaders: int = attrs.field(init=False, default=0)
    _changed: anyio.Event = attrs.field(init=False, factory=anyio.Event)

    async def lead(self, candidate: Candidate) -> None:
        async with self.lock.hold(self.name) as scope:
            self.leading.append(candidate)
            self.most_leaders = max(self.most_leaders, len(self.leading))
            self._changed.set()
            try:
                with scope:
                    await candidate.may_go.wait()
            finally:
                self.leading.remove(candidate)
            if candidate.fails:
                raise OwnError

    async def until_led(self) -> None:
        """Wait until somebody leads."""
        with anyio.fail_after(10):
            while not self.leading:
                self._changed = anyio.Event()
                await self._changed.wait()

    @property
    def waiting(self) -> list[Candidate]:
        """Those who came and do not lead."""
        return [candidate for candidate in self.candidates if candidate not in self.leading]


class LeaderLockMachine(AdapterMachine):
    def __init__(self, case: Case, portal: BlockingPortal) -> None:
        super().__init__(case, portal)
        assert self.adapters.leader_lock is not None
        self.offices = {name: Office(self.adapters.leader_lock, name) for name in NAMES}

    def teardown(self) -> None:
        for office in self.offices.values():
            for candidate in office.candidates:
                candidate.future.cancel()
        super().teardown()

    @rule(name=names)
    def come(self, name: str) -> None:
        office = self.offices[name]
        if len(office.candidates) < MOST:
            candidate = Candidate()
            office.candidates.append(candidate)
            candidate.future = self.portal.start_task_soon(office.lead, candidate)

    @precondition(lambda self: any(office.candidates for office in self.offices.values()))
    @rule(name=names, fails=st.booleans())
    def leave(self, name: str, fails: bool) -> None:
        office = self.offices[name]
        if office.candidates:
            (leader,) = office.leading
            office.candidates.remove(leader)
            leader.fails = fails
            self.portal.call(leader.may_go.set)
            assert isinstance(leader.future.exception(timeout=10), OwnError) == fails

    @rule(name=names, number=st.integers(0, MOST - 1))
    def give_up_waiting(self, name: str, number: int) -> None:
        office = self.offices[name]
        for candidate in office.waiting[number : number + 1]:
            office.candidates.remove(candidate)
            candidate.future.cancel()

    @rule(name=names)
    def be_cancelled(self, name: str) -> None:
        office = self.offices[name]
        for leader in tuple(office.leading):
            office.candidates.remove(leader)
            leader.future.cancel()
            self.portal.call(self._until_gone, office, leader)

    async def _until_gone(self, office: Office, leader: Candidate) -> None:
        with anyio.fail_after(10):
            while leader in office.leading:
                await checkpoint()

    @invariant()
    def exactly_one_leads_if_anybody_wants_to(self) -> None:
        for office in self.offices.values():
            if office.candidates:
                self.portal.call(office.until_led)
            assert len(office.leading) == bool(office.candidates)
            assert office.most_leaders <= 1


@pytest.mark.parametrize("subject", cases_with(["leader_lock"], backends=["asyncio"]), ids=str)
def test_there_is_one_leader_of_a_name_whatever_happens(subject: Case) -> None:
    run_machine(LeaderLockMachine, subject)
