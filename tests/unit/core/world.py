"""A world to put processes into: durable state in memory, and virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

import anyio
import attrs
from anyio.lowlevel import checkpoint

from sessions_adapters import memory
from sessions_core import chat
from sessions_core.domain.channel import Io, Record
from sessions_core.domain.events import Event
from sessions_core.domain.guard import Guard
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Session
from sessions_core.errors import DispatcherUnavailableError
from sessions_core.facade import Ports, Sessions, Settings
from sessions_core.ports.clock import Clock, Ids
from sessions_core.ports.observer import Observer
from sessions_core.ports.run_dispatcher import RunDispatcher
from sessions_core.services.sweep import SweepConfig
from sessions_core.testing import VirtualTimeLoop
from unit.core.chats import HOME, NAME, echo_agents
from unit.core.taps import Crash, Tap, Tapped

T = TypeVar("T")
E = TypeVar("E", bound=Event)

START = datetime(2026, 1, 1, tzinfo=UTC)


@attrs.define
class LoopClock(Clock):
    """Shows the event loop's own (virtual) time."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        return START + self.ahead + timedelta(seconds=anyio.current_time())

    def stand_still(self, by: timedelta) -> None:
        """Let time pass in which nothing runs, as if the machine had been asleep."""
        self.ahead += by


@attrs.define
class CountingIds(Ids):
    """Ids in the order of their making."""

    count: int = 0

    def new(self) -> str:
        self.count += 1
        return f"c{self.count:024d}"

    def new_part(self) -> str:
        self.count += 1
        return f"p{self.count}"


@attrs.define
class Notebook(Observer):
    """Remembers all facts."""

    events: list[Event] = attrs.field(factory=list)

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


@attrs.define
class Engine:
    """A durable queue of runs, shared by all processes. A job is done when a worker has carried it to its end."""

    jobs: dict[RunId, bool] = attrs.field(factory=dict)
    withdrawn: list[RunId] = attrs.field(factory=list)
    taken: set[RunId] = attrs.field(factory=set)
    news: anyio.Event = attrs.field(factory=anyio.Event)
    is_down: bool = False

    def put(self, run_id: RunId) -> None:
        self.jobs.setdefault(run_id, True)
        news, self.news = self.news, anyio.Event()
        news.set()

    def take(self) -> RunId | None:
        free = next((run for run, is_open in self.jobs.items() if is_open and run not in self.taken), None)
        if free is not None:
            self.taken.add(free)
        return free


@attrs.define
class EngineDispatcher(RunDispatcher):
    """Puts runs into the engine's queue."""

    engine: Engine

    async def dispatch(self, run: RunRecord) -> None:
        await checkpoint()
        if self.engine.is_down:
            raise DispatcherUnavailableError
        self.engine.put(run.id)

    async def cancel(self, run_id: RunId) -> None:
        await checkpoint()
        if self.engine.is_down:
            raise DispatcherUnavailableError
        self.engine.withdrawn.append(run_id)


@attrs.define
class World:
    """What outlives processes."""

    clock: Clock = attrs.field(factory=LoopClock)
    ids: CountingIds = attrs.field(factory=CountingIds)
    observer: Notebook = attrs.field(factory=Notebook)
    engine: Engine = attrs.field(factory=Engine)
    tables: memory.Tables = attrs.field(init=False)
    log: memory.InMemoryChannelLog = attrs.field(init=False)
    waitpoints: memory.InMemoryWaitpointStore = attrs.field(init=False)
    registry: memory.InMemoryWaitRegistry = attrs.field(init=False)
    leader: memory.InMemoryLeaderLock = attrs.field(init=False, factory=memory.InMemoryLeaderLock)

    def __attrs_post_init__(self) -> None:
        self.tables = memory.Tables(self.clock)
        self.log = memory.InMemoryChannelLog(self.clock)
        self.waitpoints = memory.InMemoryWaitpointStore(self.clock)
        self.registry = memory.InMemoryWaitRegistry(self.clock)

    def ports(self, tap: Tap | None = None, **replaced: Any) -> Ports:
        """Return ports to the world, each behind *tap*."""
        made: dict[str, Any] = {
            "sessions": memory.InMemorySessionStore(self.tables),
            "runs": memory.InMemoryRunStore(self.tables),
            "backlog": memory.InMemoryBacklog(self.tables),
            "index": memory.InMemorySessionIndex(self.tables),
            "log": self.log,
            "dispatcher": EngineDispatcher(self.engine),
            "waitpoints": self.waitpoints,
            "wait_registry": self.registry,
            "environments": memory.InMemoryEnvironmentStore(self.clock),
            "tokens": memory.InMemoryTokenLedger(self.clock),
            **replaced,
        }
        if tap is not None:
            made = {name: Tapped(port, tap) for name, port in made.items()}
        return Ports(**made, leader=self.leader, clock=self.clock, ids=self.ids, observer=self.observer)

    def sessions(self, tap: Tap | None = None, agents: chat.Agents | None = None, **replaced: Any) -> Sessions:
        """Return a facade that is not running anything in the background."""
        return Sessions(self.ports(tap, **replaced), agents, SETTINGS)

    @asynccontextmanager
    async def process(
        self, tap: Tap | None = None, agents: chat.Agents | None = None, ports: Ports | None = None
    ) -> AsyncGenerator[Sessions]:
        """Run a whole process: sweep, heartbeats, and a worker for the engine's runs.

        When its tap kills it, the block is cancelled and ends as if it had ended well.
        """
        sessions = Sessions(ports or self.ports(tap), echo_agents() if agents is None else agents, SETTINGS)
        mine: set[RunId] = set()
        try:
            async with sessions.running(), anyio.create_task_group() as tasks:
                tasks.start_soon(self._work, sessions, tasks, mine)
                try:
                    yield sessions
                finally:
                    sessions.executor.drain()
                    if not getattr(tap, "is_dead", False):
                        with anyio.move_on_after(5, shield=True):
                            while mine & self.engine.taken:
                                await anyio.sleep(0.1)
                    tasks.cancel_scope.cancel()
        except BaseException as error:
            if not _is_crash(error):
                raise
        finally:
            self.engine.taken -= mine

    async def _work(self, sessions: Sessions, tasks: anyio.abc.TaskGroup, mine: set[RunId]) -> None:
        while True:
            news = self.engine.news
            while (run_id := self.engine.take()) is not None:
                mine.add(run_id)
                tasks.start_soon(self._carry_out, sessions, run_id)
            await news.wait()

    async def _carry_out(self, sessions: Sessions, run_id: RunId) -> None:
        try:
            await sessions.executor.execute(run_id)
        except Exception:  # noqa: BLE001 - a store that gave no answer, say; the engine tries again later
            await anyio.sleep(1)
        else:
            self.engine.jobs[run_id] = False
        finally:
            self.engine.taken.discard(run_id)
            self.engine.put(run_id)

    def session(self, name: str = NAME) -> Session:
        """Return the session's row, around all ports."""
        found = self.tables.find(HOME.id, name)
        assert found is not None
        return found

    def runs(self) -> list[RunRecord]:
        """Return all run records in the order of their claims."""
        return list(self.tables.runs.values())

    async def records(self, io: Io, name: str = NAME) -> list[Record]:
        """Return all kept records of a channel."""
        return list((await self.log.read(self.session(name).channel(io), 0, 1_000_000)).records)

    async def guard(self, io: Io) -> Guard:
        """Return the guard of a channel."""
        return (await self.log.tail(self.session().channel(io))).guard


def _is_crash(error: BaseException) -> bool:
    """Tell whether an error is a crash and what followed from it."""
    if isinstance(error, BaseExceptionGroup):
        inner = cast("tuple[BaseException, ...]", error.exceptions)
        return any(_is_crash(e) for e in inner)
    return isinstance(error, Crash)


SETTINGS = Settings(sweep=SweepConfig(interval=timedelta(seconds=1)))


def run_virtually(scenario: Callable[[], Awaitable[T]], backend: str = "asyncio") -> T:
    """Run *scenario* in virtual time on a loop of its own, deterministically."""
    assert backend == "asyncio"
    return anyio.run(scenario, backend=backend, backend_options={"loop_factory": VirtualTimeLoop})
