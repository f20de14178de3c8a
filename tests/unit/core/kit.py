"""A world to put processes into: durable state in memory, and ports whose every call a test may delay, fail or cut off."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from inspect import iscoroutinefunction
from itertools import pairwise
from typing import Any, TypeVar, cast

import anyio
import attrs
from anyio.lowlevel import checkpoint

from sessions_adapters import memory
from sessions_core import chat
from sessions_core.domain.channel import (
    SESSION_CLOSED,
    TURN_COMPLETE,
    Batch,
    Channel,
    Envelope,
    Io,
    Record,
    RecordKind,
    committed_by,
)
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.events import Event
from sessions_core.domain.ids import EnvironmentId, ExternalId, OrganizationId, PartId, ProjectId, RunId
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Session
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.errors import DispatcherUnavailableError
from sessions_core.facade import Ports, Sessions, Settings
from sessions_core.ports.clock import Clock, Ids
from sessions_core.ports.observer import Observer
from sessions_core.ports.run_dispatcher import RunDispatcher
from sessions_core.services.session_service import NewSession
from sessions_core.services.sweep import SweepConfig
from sessions_core.testing import VirtualTimeLoop

T = TypeVar("T")
E = TypeVar("E", bound=Event)

START = datetime(2026, 1, 1, tzinfo=UTC)
HOME = Environment(
    id=EnvironmentId("env_home"),
    organization_id=OrganizationId("org_1"),
    project_id=ProjectId("proj_1"),
    type=EnvironmentType.DEVELOPMENT,
)
NAME = ExternalId("chat")


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


# --- Taps -----------------------------------------------------------------------------------------


class Tap:
    """Is asked before and after every call of a port."""

    async def before(self, call: str) -> None:
        """Do nothing."""

    async def after(self, call: str) -> None:
        """Do nothing."""


@attrs.define
class SlowAt(Tap):
    """Makes one kind of call very slow."""

    call: str
    seconds: float

    async def before(self, call: str) -> None:
        if call == self.call:
            await anyio.sleep(self.seconds)


class Crash(BaseException):
    """The process died."""


@attrs.define
class CrashAt(Tap):
    """Kills its process at the n-th step while armed: each call is one step before and one after its effect.

    The sweep's questions are no steps: a death there is like one after the step before. A dead process has no effect on anything: every further call is cut off, also that of shielded clean-up.
    """

    step: int
    seen: list[str] = attrs.field(factory=list)
    is_armed: bool = False
    is_dead: bool = False

    async def before(self, call: str) -> None:
        self._step(f"before {call}")

    async def after(self, call: str) -> None:
        self._step(f"after {call}")

    def _step(self, name: str) -> None:
        if self.is_armed and not self.is_dead and ".list_" not in name:
            self.is_dead = len(self.seen) == self.step
            self.seen.append(name)
        if self.is_dead:
            raise Crash


@attrs.define
class FailAt(Tap):
    """Lets the n-th step from arming on fail with *error*, once. The process lives on."""

    step: int
    error: Callable[[str], Exception]
    seen: list[str] = attrs.field(factory=list)
    is_armed: bool = False
    has_failed: bool = False

    async def before(self, call: str) -> None:
        self._step(f"before {call}", call)

    async def after(self, call: str) -> None:
        self._step(f"after {call}", call)

    def _step(self, name: str, call: str) -> None:
        if not self.is_armed or self.has_failed or ".list_" in name:
            return
        self.has_failed = len(self.seen) == self.step
        self.seen.append(name)
        if self.has_failed:
            raise self.error(call)


@attrs.define
class Shuffle(Tap):
    """Delays every call by chance, so that tasks meet in every order; may freeze or kill the process for a while.

    Attributes:
        rng: The only source of chance, so that a seed repeats the whole story.
        freezes: Chance per call that this process stands still for longer than its heartbeat may.
        crashes: Chance per call that it dies.
    """

    rng: random.Random
    freezes: float = 0.0
    crashes: float = 0.0
    frozen_until: float = 0.0
    is_dead: bool = False
    is_calm: bool = False

    async def before(self, call: str) -> None:
        await self._dawdle()

    async def after(self, call: str) -> None:
        await self._dawdle()

    async def _dawdle(self) -> None:
        if not self.is_calm:
            self._maybe_die()
            await self._delay()
        while (rest := self.frozen_until - anyio.current_time()) > 0:
            await anyio.sleep(rest)
        if self.is_dead:
            raise Crash

    async def _delay(self) -> None:
        for _ in range(self.rng.choice((0, 0, 1, 2, 5))):
            await checkpoint()
        if self.rng.random() < 0.1:
            await anyio.sleep(self.rng.choice((0.001, 0.01, 0.1, 1.0)))
        if self.rng.random() < self.freezes:
            self.frozen_until = anyio.current_time() + self.rng.choice((16.0, 25.0, 40.0))

    def _maybe_die(self) -> None:
        if not self.is_dead and self.rng.random() < self.crashes:
            self.is_dead = True
        if self.is_dead:
            raise Crash


class Tapped:
    """A port behind a tap."""

    def __init__(self, inner: Any, tap: Tap) -> None:
        self._inner = inner
        self._tap = tap
        self._name = type(inner).__name__.removeprefix("InMemory")

    def __getattr__(self, method: str) -> Any:
        inner = getattr(self._inner, method)
        if method == "follow":
            return self._follow
        if not iscoroutinefunction(inner):
            return inner
        name = f"{self._name}.{method}"

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._tap.before(name)
            result = await inner(*args, **kwargs)
            await self._tap.after(name)
            return result

        return call

    @asynccontextmanager
    async def _follow(self, channel: Channel, start: int) -> AsyncGenerator[AsyncIterator[Batch]]:
        async with self._inner.follow(channel, start) as batches:
            yield _TappedReading(batches, self._tap)


@attrs.define
class _TappedReading(AsyncIterator[Batch]):
    _batches: AsyncIterator[Batch]
    _tap: Tap

    async def __anext__(self) -> Batch:
        batch = await anext(self._batches)
        # A follower that is told late is all that can happen to a reading; it is no step of its own.
        if isinstance(self._tap, Shuffle):
            await self._tap.before("follow")
        return batch


# --- The world and its processes ------------------------------------------------------------------


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


def _is_crash(error: BaseException) -> bool:
    """Tell whether an error is a crash and what followed from it."""
    if isinstance(error, BaseExceptionGroup):
        inner = cast("tuple[BaseException, ...]", error.exceptions)
        return any(_is_crash(e) for e in inner)
    return isinstance(error, Crash)


SETTINGS = Settings(sweep=SweepConfig(interval=timedelta(seconds=1)))


def spec(task: str = "echo", *, name: str | None = NAME, idle: float = 3, **config: Any) -> NewSession:
    """Return what creates a session whose runs leave after *idle* seconds."""
    members = {"basePayload": {"idleTimeoutInSeconds": idle}, **config}
    return NewSession(
        type="chat.agent",
        task=task,
        trigger_config=TriggerConfig(members),
        external_id=None if name is None else ExternalId(name),
    )


def said(text: str, trigger: str = "submit-message", **payload: Any) -> str:
    """Return the text of a chat message as clients send it."""
    message = {"id": text, "role": "user", "parts": [{"type": "text", "text": text}]}
    given = {"message": message} if trigger == "submit-message" else {}
    return json.dumps({"kind": "message", "payload": {**given, "chatId": NAME, "trigger": trigger, **payload}})


STOP = json.dumps({"kind": "stop"})


async def say(sessions: Sessions, text: str, *, part: str | None = None, name: str = NAME) -> int:
    """Append a chat message the way a server does, and return its seq."""
    session = await sessions.sessions.find_cached(HOME.id, name)
    assert session is not None
    part_id = PartId(part or text)
    return (await sessions.channels.append_text(session, Io.IN, said(text), part_id=part_id)).seq


def echo_agents(tasks: Mapping[str, Callable[[chat.Run], Awaitable[None]]] | None = None) -> chat.Agents:
    """Return agents with the task ``echo``, which says in its answer who wrote it, and others."""
    agents = chat.Agents()

    @agents.task("echo")
    async def echo(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.data("by", {"epoch": run.record.epoch, "run": run.id, "seq": turn.seq})
                await turn.text(f"you said: {turn.text_input}")

    for name, task in (tasks or {}).items():
        agents.task(name)(task)
    return agents


def run_virtually(scenario: Callable[[], Awaitable[T]], backend: str = "asyncio") -> T:
    """Run *scenario* in virtual time on a loop of its own, deterministically."""
    assert backend == "asyncio"
    return anyio.run(scenario, backend=backend, backend_options={"loop_factory": VirtualTimeLoop})


# --- What must hold -------------------------------------------------------------------------------


def data_of(record: Record) -> Any:
    """Return the data of a data record."""
    envelope = Envelope.parse(record.body)
    assert envelope is not None
    return envelope.data


def input_texts(records: list[Record]) -> dict[int, str]:
    """Return the texts of the chat messages among the records of ``in``."""
    texts = {}
    for record in records:
        given = chat.Input.parse(data_of(record))
        if given is not None and given.kind == "message" and given.trigger == "submit-message":
            texts[record.seq] = chat.text_of(given.payload.get("message"))
    return texts


async def check_promises(world: World, acknowledged: Mapping[str, int], name: str = NAME) -> None:
    """Check promises 1 to 4 of the design over what is stored, once everything has come to rest.

    Args:
        world: The world.
        acknowledged: The texts whose append returned, and the seqs it gave.
        name: Which session.
    """
    session = world.session(name)
    inputs, outputs = await world.records(Io.IN, name), await world.records(Io.OUT, name)
    assert [record.seq for record in inputs] == list(range(len(inputs)))
    assert [record.seq for record in outputs] == list(range(len(outputs)))

    texts = input_texts(inputs)
    assert len(set(texts.values())) == len(texts), f"stored twice: {texts}"
    for text, seq in acknowledged.items():
        assert texts.get(seq) == text, f"{text!r} was acknowledged at {seq}, but: {texts}"

    epochs = [
        data_of(record)["data"]["epoch"]
        for record in outputs
        if record.kind is RecordKind.DATA and data_of(record)["type"] == "data-by"
    ]
    assert all(a <= b for a, b in pairwise(epochs)), f"two runs wrote at once: {epochs}"

    completed = Counter(
        committed_by(record)
        for record in outputs
        if record.control == TURN_COMPLETE and record.header(SESSION_CLOSED) is None
    )
    assert all(count == 1 for count in completed.values()), f"answered more than once: {completed}"
    over = session.refusal(world.clock.now())
    if over is None:
        assert set(texts) <= set(completed), f"never answered: {texts.keys() - completed.keys()}"
    else:
        await _check_closed(world, session, inputs, outputs)
    await check_rest(world)


async def _check_closed(world: World, session: Session, inputs: list[Record], outputs: list[Record]) -> None:
    assert session.sealed_at is not None
    for io in Io:
        assert (await world.log.tail(session.channel(io))).guard.is_sealed
    signals = [
        record for record in inputs if Envelope.parse(record.body) and data_of(record) and "close" in data_of(record)
    ]
    assert len(signals) == 1
    endings = [record for record in outputs if record.header(SESSION_CLOSED) == "true"]
    assert len(endings) == 1
    assert endings[0] is outputs[-1]
    reason = session.closed_reason if session.closed_at else "expired"
    assert endings[0].header("session-closed-reason") == reason
    covered = committed_by(endings[0])
    assert covered is not None
    assert covered >= signals[0].seq


async def until_rest(world: World, longest: float = 600) -> None:
    """Let time pass until nothing is left to do, or the *longest* time is over."""
    end = anyio.current_time() + longest
    while anyio.current_time() < end:
        await anyio.sleep(5)
        with suppress(AssertionError):
            await check_rest(world)
            return


async def check_rest(world: World) -> None:
    """Check that nothing is left over for anybody to repair."""
    backlog, later = memory.InMemoryBacklog(world.tables), world.clock.now() + timedelta(days=1)
    assert await backlog.list_undispatched(later, 10) == []
    assert await backlog.list_stalled(later, 10) == []
    assert await backlog.list_unsettled(10) == []
    assert await backlog.list_unsealed(10) == []
    assert [run for run in world.runs() if run.is_alive] == []
