"""Session tokens on turn-completes: fresh ones, cheap ones, and none rather than a turn that hangs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio
import attrs
import pytest

from sessions_adapters.memory import InMemoryEnvironmentStore
from sessions_core import chat
from sessions_core.domain.channel import PUBLIC_ACCESS_TOKEN, TURN_COMPLETE, Io
from sessions_core.domain.environment import RootKey
from sessions_core.domain.events import SystemFailed
from sessions_core.domain.ids import EnvironmentId
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Session
from sessions_core.errors import StoreUnavailableError
from sessions_core.ports.session_tokens import SessionTokens
from sessions_core.services.token_issuer import TokenIssuer
from unit.core.chats import HOME, NAME, echo_agents, say, spec
from unit.core.world import World

KEY = "tr_dev_first"


class PlainTokens(SessionTokens):
    """Writes into the token what it was made from."""

    def issue(self, session: Session, key: RootKey, now: datetime) -> str:
        return f"{session.key} {key.value} {now.second}"

    def issue_for_run(self, run: RunRecord, key: RootKey, now: datetime) -> str:
        return f"{run.id} {key.value} {now.second}"


@attrs.define(eq=False)
class CountedEnvironments(InMemoryEnvironmentStore):
    """Counts how often root keys are asked for; gives no answer while it is down."""

    asked: int = 0
    is_down: bool = False
    hangs: bool = False

    async def find_root_keys(self, environment_id: EnvironmentId) -> Sequence[RootKey]:
        self.asked += 1
        if self.is_down:
            raise StoreUnavailableError
        if self.hangs:
            await anyio.sleep_forever()
        return await super().find_root_keys(environment_id)


@pytest.fixture
def world() -> World:
    return World()


async def tokens_of(world: World, **replaced: Any) -> list[str | None]:
    """Run a task that answers two messages 10 seconds apart; return the tokens of its turn-completes."""
    agents = echo_agents()
    tokens: list[str | None] = []

    @agents.task("asks")
    async def asks(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                tokens.append(await run.session_token())

    ports = attrs.evolve(world.ports(), **replaced)
    async with world.process(agents=agents, ports=ports) as sessions:
        await sessions.sessions.create(HOME, spec("asks", idle=1000))
        for text in ("one", "two"):
            await say(sessions, text)
            await anyio.sleep(10)
    headers = [r.header(PUBLIC_ACCESS_TOKEN) for r in await world.records(Io.OUT) if r.control == TURN_COMPLETE]
    assert headers == tokens
    return headers


async def test_every_turn_complete_carries_a_fresh_token(world: World) -> None:
    environments = CountedEnvironments(world.clock)
    await environments.create(HOME, KEY)
    first, second = await tokens_of(world, session_tokens=PlainTokens(), environments=environments)
    assert first is not None
    assert second is not None
    assert first.startswith(f"{NAME} {KEY} ")
    assert first != second


async def test_without_the_port_there_is_no_token(world: World) -> None:
    environments = CountedEnvironments(world.clock)
    await environments.create(HOME, KEY)
    assert await tokens_of(world, environments=environments) == [None, None]
    assert environments.asked == 0


async def test_a_key_that_cannot_be_had_holds_no_turn_up(world: World) -> None:
    down = CountedEnvironments(world.clock, is_down=True)
    assert await tokens_of(world, session_tokens=PlainTokens(), environments=down) == [None, None]
    assert {event.step for event in world.observer.of(SystemFailed)} == {"session token"}
    assert await tokens_of(World(), session_tokens=PlainTokens()) == [None, None], "no such environment"


async def test_a_key_that_does_not_come_holds_no_turn_up(world: World) -> None:
    hangs = CountedEnvironments(world.clock, hangs=True)
    assert await tokens_of(world, session_tokens=PlainTokens(), environments=hangs) == [None, None]


async def test_the_key_is_read_once_a_second_and_is_always_the_current_one(world: World) -> None:
    environments = CountedEnvironments(world.clock)
    await environments.create(HOME, KEY)
    sessions = world.sessions()
    session = (await sessions.sessions.create(HOME, spec())).session
    issuer = TokenIssuer(
        session_tokens=PlainTokens(), environments=environments, clock=world.clock, observer=world.observer
    )
    for _ in range(100):
        assert KEY in (await issuer.issue(session) or "")
    assert environments.asked == 1
    await environments.rotate_root_key(HOME.id, "tr_dev_second", grace=timedelta(days=1))
    await anyio.sleep(1.1)
    assert "tr_dev_second" in (await issuer.issue(session) or "")
    assert environments.asked == 2
