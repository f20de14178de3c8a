"""The chat page's environment is looked for until there is one, and then never again."""

from __future__ import annotations

import asyncio

import attrs
import pytest

from sessions_adapters.memory import InMemoryEnvironmentStore
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.ids import EnvironmentId
from sessions_core.testing import ManualClock
from sessions_server.page_environment import PageEnvironment
from sessions_server.problems import NoDevelopmentEnvironmentError

KEY = "tr_dev_" + "k" * 23


@attrs.define(eq=False)
class CountingStore(InMemoryEnvironmentStore):
    """Counts how often it is asked for all environments."""

    asked: int = 0

    async def list_all(self) -> list[Environment]:
        self.asked += 1
        return await super().list_all()

    async def add(self, name: str, kind: EnvironmentType) -> None:
        await self.create(Environment(id=EnvironmentId(name), type=kind), f"{KEY}{len(name)}")


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(ManualClock())


async def test_the_oldest_of_its_kind_is_asked_for_once_by_all_together(store: CountingStore) -> None:
    await store.add("env_production", EnvironmentType.PRODUCTION)
    await store.add("env_first", EnvironmentType.DEVELOPMENT)
    await store.add("env_2nd", EnvironmentType.DEVELOPMENT)
    page = PageEnvironment(store)
    callers = await asyncio.gather(*(page.caller() for _ in range(20)))
    assert {caller.environment.id for caller in [*callers, await page.caller()]} == {"env_first"}
    assert store.asked == 1


async def test_one_that_is_made_later_is_found(store: CountingStore) -> None:
    page = PageEnvironment(store)
    for _ in range(2):
        with pytest.raises(NoDevelopmentEnvironmentError):
            await page.caller()
    await store.add("env_first", EnvironmentType.DEVELOPMENT)
    assert (await page.caller()).environment.id == "env_first"
