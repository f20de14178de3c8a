"""Processes that can be killed, and what outlives them.

A *process* is everything that a crash takes with it: the facade, its background tasks, its runs. What is stored outlives
it. A process that is killed is cut off from the stores first, so that no clean-up of its tasks has an effect any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import attrs

from sessions_core.agents import Agents
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.events import Event
from sessions_core.domain.ids import EnvironmentId, OrganizationId, ProjectId, time_ordered_id
from sessions_core.facade import Ports, Sessions, Settings
from sessions_core.ports.clock import Clock, Ids
from sessions_core.ports.observer import Observer
from sessions_core.ports.run_dispatcher import RunDispatcher
from sessions_core.services.sweep import SweepConfig

if TYPE_CHECKING:
    from sessions_adapters.local_runs import LocalRunDispatcher

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
BEAT_SECONDS: Final = 60.0
SETTINGS: Final = Settings(
    owns_data=True,
    # Rarely, so that days pass quickly. What a message or a crash needs does not wait for the sweep.
    sweep=SweepConfig(interval=timedelta(minutes=1), stall=timedelta(minutes=5)),
)
HOME: Final = Environment(
    id=EnvironmentId("env_test"),
    organization_id=OrganizationId("org_test"),
    project_id=ProjectId("proj_test"),
    type=EnvironmentType.DEVELOPMENT,
)


@attrs.define
class LoopClock(Clock):
    """Shows the event loop's own (virtual) time."""

    def now(self) -> datetime:
        """Return the time since the loop began, from 1 January 2026 on."""
        return START + timedelta(seconds=anyio.current_time())


@attrs.define
class CountingIds(Ids):
    """Ids in the order of their making, the same in every run of a test."""

    _count: int = 0

    def new(self) -> str:
        """Return the next id."""
        self._count += 1
        return time_ordered_id(0, f"{self._count:016d}")

    def new_part(self) -> str:
        """Return the next part id."""
        self._count += 1
        return f"part-{self._count}"


@attrs.define
class Notebook(Observer):
    """Remembers all facts."""

    events: list[Event] = attrs.field(factory=list)

    def __call__(self, event: Event) -> None:
        """Remember *event*."""
        self.events.append(event)


class Killed(BaseException):
    """Raised by every port of a dead process. Nothing that expects ordinary errors catches it."""


@attrs.define
class Cord:
    """What ties a process to the stores."""

    is_cut: bool = False


class Tied:
    """A port that works until its cord is cut."""

    def __init__(self, port: Any, cord: Cord) -> None:
        self._port = port
        self._cord = cord

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._port, name)
        if not iscoroutinefunction(member):
            return member

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self._cord.is_cut:
                raise Killed
            return await member(*args, **kwargs)

        return call


@attrs.define(eq=False)
class World:
    """What outlives processes."""

    observer: Notebook = attrs.field(init=False, factory=Notebook)
    clock: Clock = attrs.field(init=False, factory=LoopClock)
    ids: Ids = attrs.field(init=False, factory=CountingIds)
    _stores: Mapping[str, Any] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        from sessions_adapters import memory

        tables = memory.Tables(self.clock)
        self._stores = {
            "sessions": memory.InMemorySessionStore(tables),
            "runs": memory.InMemoryRunStore(tables),
            "backlog": memory.InMemoryBacklog(tables),
            "index": memory.InMemorySessionIndex(tables),
            "log": memory.InMemoryChannelLog(self.clock),
            "waitpoints": memory.InMemoryWaitpointStore(self.clock),
            "wait_registry": memory.InMemoryWaitRegistry(self.clock),
            "environments": memory.InMemoryEnvironmentStore(self.clock),
            "tokens": memory.InMemoryTokenLedger(self.clock),
            "leader": memory.InMemoryLeaderLock(),
        }

    def ports(self, cord: Cord, dispatcher: RunDispatcher) -> Ports:
        """Return ports to the world that work until *cord* is cut."""
        tied = {name: cast("Any", Tied(store, cord)) for name, store in self._stores.items()}
        return Ports(**tied, dispatcher=dispatcher, clock=self.clock, ids=self.ids, observer=self.observer)


@attrs.define(eq=False)
class Process:
    """One life of a process, from :meth:`begin` to :meth:`end` or :meth:`kill`."""

    _world: World
    _agents: Agents
    _cord: Cord = attrs.field(init=False, factory=Cord)
    _is_over: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)
    _dispatcher: LocalRunDispatcher = attrs.field(init=False)
    sessions: Sessions = attrs.field(init=False)
    _life: asyncio.Task[None] = attrs.field(init=False)

    async def begin(self) -> None:
        """Start it; returns when it works."""
        from sessions_adapters.local_runs import LocalRunDispatcher

        self._dispatcher = LocalRunDispatcher()
        self.sessions = Sessions(self._world.ports(self._cord, self._dispatcher), self._agents, SETTINGS)
        self.sessions.heart.interval_seconds = BEAT_SECONDS
        works = asyncio.Event()
        self._life = asyncio.create_task(self._live(works))
        await works.wait()

    async def _live(self, works: asyncio.Event) -> None:
        executor = self.sessions.executor
        async with (
            self.sessions.running(),
            self._dispatcher.serve(executor.execute, drain=executor.drain, patience=SETTINGS.drain),
        ):
            works.set()
            await self._is_over.wait()

    async def end(self) -> None:
        """Ask its runs to end, and end it."""
        self._is_over.set()
        await self._life

    async def kill(self) -> None:
        """Let it die. What its tasks still do has no effect."""
        self._cord.is_cut = True
        for run_id in self.sessions.executor.held:
            await self._dispatcher.cancel(run_id)
        self._life.cancel()
        await asyncio.wait([self._life])
        error = None if self._life.cancelled() else self._life.exception()
        if error is not None and not _is_death(error):
            raise error


def _is_death(error: BaseException) -> bool:
    """Tell whether an error is of a kind that killing a process brings about."""
    if isinstance(error, BaseExceptionGroup):
        inner = cast("tuple[BaseException, ...]", error.exceptions)
        return all(map(_is_death, inner))
    return isinstance(error, Killed | asyncio.CancelledError)
