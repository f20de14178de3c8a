"""Whole processes over one durable world, in every order that chance can think of.

Each seed is one story: processes that are slow, freeze past their heartbeat, or die at any call of any port; clients
that retry with the same part id; agents that leave, hand over and are replaced; a close or an expiry in the middle.
When everything has come to rest, the promises must hold.
"""

from __future__ import annotations

import random
from datetime import timedelta

import anyio
import attrs
import pytest

from sessions_core import chat
from sessions_core.errors import ClosedError, SessionsError
from sessions_core.facade import Sessions
from unit.core.chats import HOME, NAME, echo_agents, say, spec
from unit.core.promises import check_promises, until_rest
from unit.core.taps import Crash, Shuffle
from unit.core.world import World, run_virtually

STORIES = 12
"""How many each test tells."""


@attrs.define(eq=False)
class Story:
    """One run of the simulation."""

    seed: int
    processes: int = 2
    freezes: float = 0.0
    crashes: float = 0.0
    hand_overs: float = 0.0
    closes: bool = False
    expires: bool = False
    rng: random.Random = attrs.field(init=False)
    world: World = attrs.field(init=False, factory=World)
    alive: dict[int, Sessions] = attrs.field(init=False, factory=dict)
    taps: dict[int, Shuffle] = attrs.field(init=False, factory=dict)
    acknowledged: dict[str, int] = attrs.field(init=False, factory=dict)
    is_closed: bool = attrs.field(init=False, default=False)
    is_calm: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    async def tell(self) -> None:
        """Live through the story and check how it ends."""
        async with anyio.create_task_group() as tasks:
            for slot in range(self.processes):
                tasks.start_soon(self._keep_running, slot)
            await self._create()
            async with anyio.create_task_group() as clients:
                for client in range(3):
                    clients.start_soon(self._chat, client)
                if self.closes:
                    clients.start_soon(self._close)
            self.is_calm = True
            for tap in self.taps.values():
                tap.is_calm = True
            await until_rest(self.world)
            await check_promises(self.world, self.acknowledged)
            tasks.cancel_scope.cancel()

    async def _keep_running(self, slot: int) -> None:
        while True:
            tap = Shuffle(self.rng, self.freezes, self.crashes)
            tap.is_calm = self.is_calm
            async with self.world.process(tap, self._agents()) as sessions:
                self.taps[slot], self.alive[slot] = tap, sessions
                await self._until_dead(tap)
            del self.alive[slot]
            await anyio.sleep(self.rng.choice((0.0, 0.3, 3.0)))

    async def _until_dead(self, tap: Shuffle) -> None:
        while not tap.is_dead:
            await anyio.sleep(0.05)
        raise Crash

    def _agents(self) -> chat.Agents:
        agents = echo_agents()

        @agents.task("mover")
        async def mover(run: chat.Run) -> None:
            async for turn in run.turns():
                async with turn:
                    await turn.data("by", {"epoch": run.record.epoch, "run": run.id, "seq": turn.seq})
                    await turn.text(f"you said: {turn.text_input}")
                if self.rng.random() < self.hand_overs:
                    await run.end_and_continue("upgrade")
                    return

        return agents

    async def _somebody(self) -> Sessions:
        while not self.alive:
            await anyio.sleep(0.1)
        return self.rng.choice(list(self.alive.values()))

    async def _create(self) -> None:
        expiry = self.world.clock.now() + timedelta(seconds=self.rng.uniform(3, 15)) if self.expires else None
        wanted = attrs.evolve(spec("mover", idle=2, maxAttempts=10), expires_at=expiry)
        while True:
            try:
                await (await self._somebody()).sessions.create(HOME, wanted)
            except (SessionsError, Crash) as error:
                if isinstance(error, ClosedError):
                    return
                await anyio.sleep(0.1)
            else:
                return

    async def _chat(self, client: int) -> None:
        for number in range(3):
            await anyio.sleep(self.rng.choice((0.0, 0.1, 1.0, 1.9, 2.0, 2.1, 5.0)))
            if not await self._say(f"{client}.{number}"):
                return

    async def _say(self, text: str) -> bool:
        """Append until it is acknowledged; False if the session takes nothing any more."""
        was_closed = self.is_closed
        retries = False
        while True:
            try:
                self.acknowledged[text] = await say(await self._somebody(), text)
            except ClosedError:
                return False
            except (SessionsError, Crash):
                retries = True
                await anyio.sleep(self.rng.choice((0.0, 0.2, 1.0)))
            else:
                assert retries or not was_closed, "appended after the close was acknowledged"
                return True

    async def _close(self) -> None:
        await anyio.sleep(self.rng.uniform(0, 8))
        while True:
            try:
                await (await self._somebody()).sessions.close(HOME.id, NAME, "enough")
            except (SessionsError, Crash):
                await anyio.sleep(0.2)
            else:
                self.is_closed = True
                return


@pytest.mark.parametrize("block", range(5))
@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param({}, id="slow"),
        pytest.param({"freezes": 0.01}, id="freezing"),
        pytest.param({"crashes": 0.01}, id="dying"),
        pytest.param({"hand_overs": 0.5}, id="handing-over"),
        pytest.param({"hand_overs": 0.5, "freezes": 0.005, "crashes": 0.005, "processes": 3}, id="everything"),
        pytest.param({"closes": True}, id="closing"),
        pytest.param({"closes": True, "freezes": 0.005, "crashes": 0.005, "hand_overs": 0.3}, id="closing-in-trouble"),
        pytest.param({"expires": True, "freezes": 0.005, "crashes": 0.005}, id="expiring-in-trouble"),
    ],
)
def test_the_promises_hold_in_every_story(trouble: dict[str, float], block: int) -> None:
    for seed in range(STORIES * block, STORIES * (block + 1)):
        try:
            run_virtually(Story(seed, **trouble).tell)  # type: ignore[arg-type]
        except BaseException as error:
            error.add_note(f"in the story of seed {seed}")
            raise
