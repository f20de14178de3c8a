"""When uses of additional keys are stored, and that no request waits for it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import attrs
import pytest

from sessions_adapters.memory import InMemoryEnvironmentStore, InMemoryTokenLedger
from sessions_core.domain.environment import USE_PRECISION, Environment
from sessions_core.domain.ids import AccessKeyId, EnvironmentId
from sessions_core.errors import StoreUnavailableError
from sessions_core.testing import ManualClock
from sessions_server.auth.authenticator import KEY_SECONDS, Authenticator
from sessions_server.auth.key_uses import PAUSE_SECONDS

HOME = EnvironmentId("env_1")
ROOT_KEY, NARROW_KEY = "tr_dev_" + "a" * 24, "tr_dev_sk_" + "d" * 24
PATIENCE = 30


@attrs.define(eq=False)
class SlowStore(InMemoryEnvironmentStore):
    """A store that counts how often it is told of uses, and answers when it is allowed to."""

    told: int = attrs.field(init=False, default=0)
    is_down: bool = attrs.field(init=False, default=False)
    answers: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)

    async def record_use(self, environment_id: EnvironmentId, key_id: AccessKeyId) -> None:
        self.told += 1
        await self.answers.wait()
        if self.is_down:
            raise StoreUnavailableError
        await InMemoryEnvironmentStore.record_use(self, environment_id, key_id)


@attrs.define(eq=False)
class Gate:
    """An authenticator whose clocks go as they are told."""

    clock: ManualClock
    store: SlowStore
    seconds: float = 0.0
    auth: Authenticator = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        ledger = InMemoryTokenLedger(self.clock)
        self.auth = Authenticator(
            environments=self.store, ledger=ledger, clock=self.clock, monotonic=lambda: self.seconds
        )

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.clock.advance(timedelta(seconds=seconds))

    async def last_use(self) -> datetime | None:
        """Let everything be stored that is to be."""
        self.store.answers.set()
        await self.auth.uses.settle(PATIENCE)
        [key] = await self.store.list_keys(HOME)
        return key.last_used_at


@pytest.fixture
async def gate() -> Gate:
    clock = ManualClock()
    store = SlowStore(clock)
    await store.create(Environment(id=HOME), ROOT_KEY)
    await store.add_key(HOME, NARROW_KEY, ["read"])
    return Gate(clock, store)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_use_is_stored_after_the_request_has_gone_on(gate: Gate) -> None:
    await gate.auth.authenticate(NARROW_KEY)  # comes back although the store does not answer
    [key] = await gate.store.list_keys(HOME)
    assert key.last_used_at is None
    assert await gate.last_use() == gate.clock.now()


async def test_root_keys_and_wrong_keys_are_not_told(gate: Gate) -> None:
    await gate.auth.authenticate(ROOT_KEY)
    with pytest.raises(Exception, match="Invalid API key"):
        await gate.auth.authenticate("tr_dev_sk_" + "x" * 24)
    assert await gate.last_use() is None
    assert gate.store.told == 0


async def test_a_busy_key_is_told_once_a_minute_and_stored_every_five(gate: Gate) -> None:
    gate.store.answers.set()
    begun = gate.clock.now()
    stored = set()
    for _ in range(601):
        await gate.auth.authenticate(NARROW_KEY)
        stored.add(await gate.last_use())
        gate.advance(KEY_SECONDS + 0.01)
    assert gate.store.told == 601 * (KEY_SECONDS + 0.01) // PAUSE_SECONDS + 1
    distances = sorted(moment - begun for moment in stored if moment)
    assert [distance // timedelta(minutes=1) for distance in distances] == [0, 5, 10]


async def test_a_key_that_comes_back_after_five_minutes_is_stored_at_once(gate: Gate) -> None:
    await gate.auth.authenticate(NARROW_KEY)
    await gate.last_use()
    gate.advance(USE_PRECISION.total_seconds())
    await gate.auth.authenticate(NARROW_KEY)
    assert await gate.last_use() == gate.clock.now()


async def test_a_store_that_is_down_hinders_nobody_and_is_told_again(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    gate.store.is_down = True
    await gate.auth.authenticate(NARROW_KEY)
    assert await gate.last_use() is None
    assert [record.message for record in caplog.records] == ["the use of a key was not stored"]
    assert NARROW_KEY not in caplog.text
    gate.store.is_down = False
    gate.advance(KEY_SECONDS + 0.01)
    await gate.auth.authenticate(NARROW_KEY)
    assert await gate.last_use() == gate.clock.now()


async def test_a_store_that_never_answers_does_not_keep_a_server_from_ending(gate: Gate) -> None:
    await gate.auth.authenticate(NARROW_KEY)
    await gate.auth.uses.settle(0.01)
    await gate.auth.uses.settle(PATIENCE)
    assert await gate.last_use() is None


async def test_a_revoked_key_is_refused_within_a_second(gate: Gate) -> None:
    await gate.auth.authenticate(NARROW_KEY)
    [key] = await gate.store.list_keys(HOME)
    await gate.store.revoke_key(HOME, key.id)
    gate.advance(KEY_SECONDS + 0.01)
    assert gate.auth.recall(NARROW_KEY) is None
    with pytest.raises(Exception, match="Invalid API key"):
        await gate.auth.authenticate(NARROW_KEY)
