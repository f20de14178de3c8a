"""The one object that an embedding service opens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import anyio.abc
import attrs

from sessions_core.agents import Agents
from sessions_core.domain.ids import EnvironmentId
from sessions_core.executor import RunExecutor
from sessions_core.ports.backlog import Backlog
from sessions_core.ports.channel_log import ChannelLog
from sessions_core.ports.clock import Clock, Ids
from sessions_core.ports.direct_writes import DirectWrites
from sessions_core.ports.environment_store import EnvironmentStore, TokenLedger
from sessions_core.ports.leader_lock import LeaderLock
from sessions_core.ports.observer import Observer
from sessions_core.ports.rate_limiter import RateLimiter
from sessions_core.ports.run_dispatcher import RunDispatcher
from sessions_core.ports.run_store import RunStore
from sessions_core.ports.session_index import SessionIndex
from sessions_core.ports.session_store import SessionStore
from sessions_core.ports.session_tokens import SessionTokens
from sessions_core.ports.waitpoint_store import WaitpointStore, WaitRegistry
from sessions_core.services.attempts import Attempts
from sessions_core.services.channel_service import ChannelService
from sessions_core.services.closing import Closing
from sessions_core.services.heartbeat import Heart, OpenBeat
from sessions_core.services.hub import Hub
from sessions_core.services.input_gate import InputGate
from sessions_core.services.run_manager import RunManager
from sessions_core.services.session_service import SessionService
from sessions_core.services.settlement import Settlement
from sessions_core.services.sweep import Sweep, SweepConfig
from sessions_core.services.token_issuer import TokenIssuer
from sessions_core.services.tolerant_registry import TolerantWaitRegistry
from sessions_core.services.wait_service import WaitService
from sessions_core.unwrapping import unwrapped


@attrs.frozen(kw_only=True)
class Ports:
    """One adapter for every port.

    They need not share a database, except that ``sessions``, ``runs`` and ``backlog`` are three views of the same rows.

    Attributes:
        open_beat: Opens ``runs.beat`` on another event loop; heartbeats then come from a thread of their own.
        rate_limiter: Counts what servers are asked; None: nobody counts.
    """

    sessions: SessionStore
    runs: RunStore
    backlog: Backlog
    log: ChannelLog
    index: SessionIndex
    dispatcher: RunDispatcher
    waitpoints: WaitpointStore
    wait_registry: WaitRegistry
    environments: EnvironmentStore
    tokens: TokenLedger
    leader: LeaderLock
    clock: Clock
    ids: Ids
    observer: Observer
    direct_writes: DirectWrites | None = None
    session_tokens: SessionTokens | None = None
    open_beat: OpenBeat | None = None
    rate_limiter: RateLimiter | None = None


@attrs.frozen(kw_only=True)
class Settings:
    """How the core behaves.

    Attributes:
        owns_data: This process is the only one that works on the data, so everything that a dead one left can be repaired
            at once.
        drain: How long runs may go on after the process was asked to stop.
        heartbeat: Pause between heartbeats of runs; a small part of the sweep's ``stall``.
    """

    sweep: SweepConfig = attrs.field(factory=SweepConfig)
    owns_data: bool = False
    drain: timedelta = timedelta(seconds=10)
    heartbeat: timedelta = timedelta(seconds=2)


@attrs.define(eq=False, init=False)
class Sessions:
    """Sessions, ready to use inside ``async with``.

    Attributes:
        sessions: Create, find, update, list, close, hand over.
        channels: Append, read, subscribe.
        waits: Wait for records.
        attempts: Begins and ends attempts, for engines that carry out runs outside this library.
        executor: Carries out runs of the agents given.
        sweep: Repairs what crashes left.
        heart: Refreshes the heartbeats of the runs that are carried out here.
    """

    ports: Ports
    settings: Settings
    sessions: SessionService
    channels: ChannelService
    waits: WaitService
    attempts: Attempts
    token_issuer: TokenIssuer
    executor: RunExecutor
    sweep: Sweep
    heart: Heart
    hub: Hub

    def __init__(self, ports: Ports, agents: Agents | None = None, settings: Settings = Settings()) -> None:
        self.ports = ports
        self.settings = settings
        agents = agents or Agents()
        self.hub = Hub(ports.log)
        manager = _run_manager(ports)
        self.waits = _waits(ports)
        closing = Closing(store=ports.sessions, log=ports.log, waits=self.waits, run_manager=manager)
        self.channels = _channels(ports, self.hub, manager, self.waits, closing)
        self.sessions = _sessions(ports, manager, closing)
        settlement = _settlement(ports, agents, manager)
        self.sweep = _sweep(ports, settings, manager, settlement, closing, self.waits)
        self.token_issuer = _tokens(ports)
        self.attempts = Attempts(
            store=ports.sessions,
            runs=ports.runs,
            channels=self.channels,
            settlement=settlement,
            clock=ports.clock,
            observer=ports.observer,
        )
        self.executor = RunExecutor(
            agents=agents,
            runs=ports.runs,
            channels=self.channels,
            sessions=self.sessions,
            attempts=self.attempts,
            dispatched=manager.dispatched,
            tokens=self.token_issuer,
            observer=ports.observer,
            draining=anyio.Event(),
        )
        self.heart = Heart(
            held=self.executor.holdings,
            lose=self.executor.lose,
            observer=ports.observer,
            interval_seconds=settings.heartbeat.total_seconds(),
        )

    @property
    def clock(self) -> Clock:
        """The clock in use."""
        return self.ports.clock

    @property
    def ids(self) -> Ids:
        """The maker of ids in use."""
        return self.ports.ids

    @property
    def environments(self) -> EnvironmentStore:
        """Environments and their keys."""
        return self.ports.environments

    @property
    def tokens(self) -> TokenLedger:
        """Used one-time tokens."""
        return self.ports.tokens

    @property
    def direct_writes(self) -> DirectWrites | None:
        """Credentials for writers that go around us, if the log has any."""
        return self.ports.direct_writes

    async def check(self) -> None:
        """Find out whether the store can be read and written.

        Raises:
            UnavailableError: It cannot.
        """
        await self.ports.sessions.find(EnvironmentId("readiness"), "readiness")
        await self.ports.sessions.check()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Sessions]:
        """Run the hub, the sweep and the heartbeats inside the block; drain runs before it ends."""
        with unwrapped():
            async with self.hub, anyio.create_task_group() as tasks:
                if self.settings.owns_data:
                    await self.sweep.recover()
                tasks.start_soon(self.sweep.run_forever)
                try:
                    async with self._beating(tasks):
                        yield self
                finally:
                    tasks.cancel_scope.cancel()

    @asynccontextmanager
    async def _beating(self, tasks: anyio.abc.TaskGroup) -> AsyncGenerator[None]:
        if self.ports.open_beat is None or not self.executor.agents.names:
            tasks.start_soon(self.heart.beat_forever, self.ports.runs.beat)
            yield
            return
        async with self.heart.beating_in_thread(self.ports.open_beat):
            yield


def _waits(ports: Ports) -> WaitService:
    return WaitService(
        store=ports.sessions,
        runs=ports.runs,
        log=ports.log,
        waitpoints=ports.waitpoints,
        registry=TolerantWaitRegistry(ports.wait_registry, ports.observer),
        clock=ports.clock,
        ids=ports.ids,
        observer=ports.observer,
    )


def _tokens(ports: Ports) -> TokenIssuer:
    return TokenIssuer(
        session_tokens=ports.session_tokens,
        environments=ports.environments,
        clock=ports.clock,
        observer=ports.observer,
    )


def _run_manager(ports: Ports) -> RunManager:
    return RunManager(
        store=ports.sessions,
        runs=ports.runs,
        log=ports.log,
        dispatcher=ports.dispatcher,
        clock=ports.clock,
        ids=ports.ids,
        observer=ports.observer,
    )


def _settlement(ports: Ports, agents: Agents, manager: RunManager) -> Settlement:
    return Settlement(
        give_up=agents.give_up,
        store=ports.sessions,
        backlog=ports.backlog,
        log=ports.log,
        run_manager=manager,
        clock=ports.clock,
        observer=ports.observer,
    )


def _channels(ports: Ports, hub: Hub, manager: RunManager, waits: WaitService, closing: Closing) -> ChannelService:
    gate = InputGate(store=ports.sessions, log=ports.log, run_manager=manager, clock=ports.clock)
    return ChannelService(
        log=ports.log,
        hub=hub,
        gate=gate,
        waits=waits,
        closing=closing,
        clock=ports.clock,
        ids=ports.ids,
        observer=ports.observer,
    )


def _sessions(ports: Ports, manager: RunManager, closing: Closing) -> SessionService:
    return SessionService(
        store=ports.sessions,
        runs=ports.runs,
        index=ports.index,
        log=ports.log,
        run_manager=manager,
        closing=closing,
        clock=ports.clock,
        ids=ports.ids,
        observer=ports.observer,
    )


def _sweep(
    ports: Ports,
    settings: Settings,
    manager: RunManager,
    settlement: Settlement,
    closing: Closing,
    waits: WaitService,
) -> Sweep:
    return Sweep(
        backlog=ports.backlog,
        runs=ports.runs,
        waitpoints=ports.waitpoints,
        leader=ports.leader,
        run_manager=manager,
        settlement=settlement,
        closing=closing,
        waits=waits,
        clock=ports.clock,
        observer=ports.observer,
        config=settings.sweep,
    )
