"""Random calls to a store of waitpoints, compared with a dictionary. Some wait while the others go on."""

from __future__ import annotations

from concurrent.futures import Future

import attrs
import pytest
from anyio.from_thread import BlockingPortal
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from contract.adapters import Case, cases_with
from contract.machines import AdapterMachine, run_machine
from contract.makers import ENV_A, ENV_B, SECOND, make_channel, make_waitpoint
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import EnvironmentId, WaitpointId
from sessions_core.domain.waitpoint import Completion, Waitpoint, WaitpointStatus
from sessions_core.errors import WaitpointNotFoundError

MOST = 8
environments = st.sampled_from([ENV_A, ENV_B])
ids = st.sampled_from([WaitpointId(f"waitpoint_{number}") for number in range(MOST)])
seconds = st.none() | st.integers(1, 5)
completions = st.builds(
    Completion,
    st.sampled_from([WaitpointStatus.COMPLETED, WaitpointStatus.TIMED_OUT]),
    st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=3),
    st.none() | st.integers(0, 9),
)


class WaitpointStoreMachine(AdapterMachine):
    def __init__(self, case: Case, portal: BlockingPortal) -> None:
        super().__init__(case, portal)
        assert self.adapters.waitpoint_store is not None
        self.store = self.adapters.waitpoint_store
        self.expected: dict[WaitpointId, Waitpoint] = {}
        self.waiting: dict[WaitpointId, list[Future[Waitpoint]]] = {}

    def teardown(self) -> None:
        for futures in self.waiting.values():
            for future in futures:
                future.cancel()
        super().teardown()

    def _find(self, environment_id: EnvironmentId, waitpoint_id: WaitpointId) -> Waitpoint | None:
        found = self.expected.get(waitpoint_id)
        return found if found is not None and found.channel.environment_id == environment_id else None

    @rule(
        number=st.integers(0, MOST - 1),
        where=environments,
        key=st.sampled_from([None, "a", "b"]),
        key_ends=seconds,
        ends=seconds,
    )
    def create(self, number: int, where: Environment, key: str | None, key_ends: int | None, ends: int | None) -> None:
        waitpoint = make_waitpoint(
            f"{number}",
            channel=make_channel(env=where.id),
            created_at=self.clock.now(),
            expires_at=None if ends is None else self.clock.now() + ends * SECOND,
            idempotency_key=key,
            idempotency_expires_at=None if key_ends is None else self.clock.now() + key_ends * SECOND,
        )
        if waitpoint.id in self.expected:
            return
        cached = self._cached(waitpoint)
        if cached is None:
            self.expected[waitpoint.id] = waitpoint
        creation = self.answer(self.store.create, waitpoint)
        assert (creation.waitpoint, creation.is_cached) == (cached or waitpoint, cached is not None)

    def _cached(self, new: Waitpoint) -> Waitpoint | None:
        for old in self.expected.values():
            is_same = (
                old.idempotency_key == new.idempotency_key and old.channel.environment_id == new.channel.environment_id
            )
            ends = old.idempotency_expires_at
            if is_same and new.idempotency_key is not None and (ends is None or ends > self.clock.now()):
                return old
        return None

    @rule(waitpoint_id=ids, completion=completions)
    def complete(self, waitpoint_id: WaitpointId, completion: Completion) -> None:
        old = self.expected.get(waitpoint_id)
        done = old is not None and old.is_waiting
        if old is not None and done:
            self.expected[waitpoint_id] = attrs.evolve(
                old,
                status=completion.status,
                output=completion.output,
                seq=completion.seq,
                completed_at=self.clock.now(),
            )
        assert self.answer(self.store.complete, waitpoint_id, completion) == done
        for future in self.waiting.pop(waitpoint_id, []) if done else []:
            assert future.result(timeout=10) == self.expected[waitpoint_id]

    @rule(where=environments, waitpoint_id=ids)
    def wait(self, where: Environment, waitpoint_id: WaitpointId) -> None:
        expected = self._find(where.id, waitpoint_id)
        if expected is not None and expected.is_waiting:
            future = self.portal.start_task_soon(self.store.wait, where.id, waitpoint_id)
            self.waiting.setdefault(waitpoint_id, []).append(future)
        else:
            assert self.answer(self.store.wait, where.id, waitpoint_id) == (expected or WaitpointNotFoundError)

    @rule(where=environments, waitpoint_id=ids)
    def find(self, where: Environment, waitpoint_id: WaitpointId) -> None:
        assert self.answer(self.store.find, where.id, waitpoint_id) == self._find(where.id, waitpoint_id)

    @rule(after=st.none() | ids, limit=st.integers(1, MOST))
    def list_waiting(self, after: WaitpointId | None, limit: int) -> None:
        waiting = sorted(waitpoint.id for waitpoint in self.expected.values() if waitpoint.is_waiting)
        expected = [self.expected[name] for name in waiting if after is None or name > after][:limit]
        assert self.answer(self.store.list_waiting, after, limit) == expected

    @rule(where=environments, limit=st.integers(1, MOST))
    def list_waiting_on(self, where: Environment, limit: int) -> None:
        channel = make_channel(env=where.id)
        waiting = sorted(w.id for w in self.expected.values() if w.is_waiting and w.channel == channel)
        expected = [self.expected[name] for name in waiting][:limit]
        assert self.answer(self.store.list_waiting_on, channel, limit) == expected

    @rule()
    def list_due(self) -> None:
        now = self.clock.now()
        due = [w for w in self.expected.values() if w.is_waiting and w.expires_at is not None and w.expires_at <= now]
        found: list[Waitpoint] = self.answer(self.store.list_due, MOST)
        assert sorted(found, key=lambda w: w.id) == sorted(due, key=lambda w: w.id)

    @rule(by=st.integers(1, 3))
    def move_the_clock(self, by: int) -> None:
        self.clock.advance(by * SECOND)

    @invariant()
    def nobody_is_woken_too_early(self) -> None:
        assert not any(future.done() for futures in self.waiting.values() for future in futures)


@pytest.mark.parametrize("subject", cases_with(["waitpoint_store"], backends=["asyncio"]), ids=str)
def test_a_store_of_waitpoints_does_what_a_dictionary_does(subject: Case) -> None:
    run_machine(WaitpointStoreMachine, subject)
