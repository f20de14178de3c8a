"""An authenticator whose clocks stand still."""

from __future__ import annotations

import pytest

from harness.credentials import KEY, ONE, OTHER_KEY, TWO, NotedStore, Seconds
from sessions_adapters.memory import InMemoryEnvironmentStore, InMemoryTokenLedger
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.ids import OrganizationId, ProjectId
from sessions_core.testing import ManualClock
from sessions_server.auth.authenticator import Authenticator


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def monotonic() -> Seconds:
    return Seconds()


@pytest.fixture
async def store(clock: ManualClock) -> NotedStore:
    store = NotedStore(clock)
    for environment_id, key in ((ONE, KEY), (TWO, OTHER_KEY)):
        environment = Environment(
            id=environment_id,
            organization_id=OrganizationId("o"),
            project_id=ProjectId("p"),
            type=EnvironmentType.DEVELOPMENT,
        )
        await store.create(environment, key)
    return store


@pytest.fixture
def auth(store: InMemoryEnvironmentStore, clock: ManualClock, monotonic: Seconds) -> Authenticator:
    return Authenticator(environments=store, ledger=InMemoryTokenLedger(clock), clock=clock, monotonic=monotonic)
