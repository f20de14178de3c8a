"""Running tasks without a server.

How this works
--------------
The kit brings an event loop of its own whose time is virtual, and the memory adapters. It runs only inside the kit's
calls: each does its work and then lets everybody go on until they wait for a time that has not come. So between two
calls nothing happens, and every test tells the same story each time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, TypeVarTuple

import anyio
import attrs

from sessions_core import chat
from sessions_core.agents import Agents
from sessions_core.domain.channel import SESSION_CLOSED, TURN_COMPLETE, Io, Record, RecordKind, committed_by
from sessions_core.domain.events import Event, RunEnded, TurnFailed, TurnStopped
from sessions_core.domain.ids import ExternalId
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Session
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.facade import Sessions
from sessions_core.services.session_service import NewSession
from sessions_core.testing.processes import HOME, Process, World
from sessions_core.testing.reading import CompletedTurn, is_wanted, list_values
from sessions_core.testing.virtual_time import VirtualTimeLoop

T = TypeVar("T")
Args = TypeVarTuple("Args")

SETTLE_SECONDS: Final = 1e-6
"""A timer this far ahead fires when nothing else is left to do now."""


@attrs.define(eq=False)
class SessionUnderTest:
    """A session whose client is the test.

    Attributes:
        name: Its external id.
    """

    kit: Kit
    name: str
    _read: list[Record] = attrs.field(init=False, factory=list)
    _turn_from: int = attrs.field(init=False, default=0)
    _value_from: int = attrs.field(init=False, default=0)

    @property
    def row(self) -> Session:
        """The session as it is stored."""
        return self.kit.run(self.kit.sessions.sessions.get, HOME.id, self.name)

    def runs(self) -> list[RunRecord]:
        """Return the session's runs, oldest first."""
        return self.kit.run(self._runs)

    def records(self, io: Io = Io.OUT) -> list[Record]:
        """Return all records of a channel."""
        return self.kit.run(self._records, io)

    def send(self, text: str, *, metadata: Any = None) -> int:
        """Say *text* as the user; return the message's seq."""
        return self.append(chat.user_message(text, id=f"user-{self.kit.count()}", metadata=metadata))

    def regenerate(self) -> int:
        """Ask for the last message to be answered again; return the request's seq."""
        return self.append(chat.regenerate_message())

    def action(self, action: Any) -> int:
        """Send an action of the client's own; return its seq."""
        return self.append(chat.action_message(action))

    def stop(self) -> int:
        """Stop the turn that is running; return the stop's seq."""
        return self.append(chat.stop_message())

    def append(self, value: Any) -> int:
        """Append anything to ``in``, a text as it is and everything else as JSON; return its seq.

        Raises:
            ClosedError: The session is closed or expired.
        """
        return self.kit.run(self._append, value if isinstance(value, str) else json.dumps(value))

    def close(self, reason: str | None = None) -> None:
        """Close the session for good."""
        self.kit.run(self._close, reason)

    def expect_turn(self, within: timedelta = timedelta(minutes=10), *, may_fail: bool = False) -> CompletedTurn:
        """Let time pass until the next turn is complete, and return it.

        Args:
            within: How much virtual time it may take.
            may_fail: Return also a turn in which the task raised.

        Raises:
            AssertionError: There is none in time, or the task raised in it; says what came instead.
        """
        turn = self.kit.run(self._next_turn, within)
        if turn.error is not None and not may_fail:
            message = f"the turn failed: {turn.error} (may_fail=True returns it all the same)"
            raise AssertionError(message) from next(reversed(self.kit.failures), None)
        return turn

    def expect(
        self, wanted: str | Callable[[Any], object] | None = None, within: timedelta = timedelta(minutes=10)
    ) -> Any:
        """Let time pass until a value is on ``out`` that has not been expected yet, and return it.

        Args:
            wanted: The chunk's ``type``, or a function that tells whether it is the one; values before it are passed over.
            within: How much virtual time it may take.

        Raises:
            AssertionError: There is none in time; says what came instead.
        """
        named = "value" if wanted is None else repr(wanted) if isinstance(wanted, str) else "such value"
        return self.kit.run(self._expect, lambda: self._find_value(wanted), within, f"no {named} came")[0]

    async def _append(self, text: str) -> int:
        sessions = self.kit.sessions
        session = await sessions.sessions.get(HOME.id, self.name)
        return (await sessions.channels.append_text(session, Io.IN, text)).seq

    async def _close(self, reason: str | None) -> None:
        await self.kit.sessions.sessions.close(HOME.id, self.name, reason)

    async def _runs(self) -> list[RunRecord]:
        sessions = self.kit.sessions.sessions
        history = await sessions.list_runs(HOME.id, self.name)
        return [await sessions.get_run(HOME.id, entry.run_id) for entry in reversed(history)]

    async def _records(self, io: Io) -> list[Record]:
        sessions = self.kit.sessions
        session = await sessions.sessions.get(HOME.id, self.name)
        return list((await sessions.channels.records(session.channel(io), 0)).records)

    async def _expect(self, find: Callable[[], T | None], within: timedelta, complaint: str) -> T:
        out = (await self.kit.sessions.sessions.get(HOME.id, self.name)).channel(Io.OUT)
        start = self._read[-1].seq + 1 if self._read else 0
        with anyio.move_on_after(within.total_seconds()):
            async with self.kit.sessions.ports.log.follow(out, start) as batches:
                while (found := find()) is None:
                    self._read += (await anext(batches)).records
                return found
        raise AssertionError(f"{complaint} within {within}\n{await self._explain()}")

    async def _next_turn(self, within: timedelta) -> CompletedTurn:
        end = await self._expect(self._find_turn, within, "no turn was completed")
        records, complete = self._read[self._turn_from : end], self._read[end]
        covered = committed_by(complete)
        assert covered is not None, "a turn-complete names what it covers"
        self._turn_from, self._value_from = end + 1, max(self._value_from, end + 1)
        return CompletedTurn(
            chunks=chat.shown_chunks(record.data for record in records if record.kind is RecordKind.DATA),
            seq=complete.seq,
            covered=covered,
            stopped=await self._was_stopped(complete),
        )

    def _find_turn(self) -> int | None:
        for index in range(self._turn_from, len(self._read)):
            record = self._read[index]
            if record.control == TURN_COMPLETE and record.header(SESSION_CLOSED) is None:
                return index
        return None

    async def _was_stopped(self, complete: Record) -> bool:
        session = await self.kit.sessions.sessions.get(HOME.id, self.name)
        told = [event for event in self.kit.events if isinstance(event, TurnStopped)]
        return any((event.session_id, event.seq) == (session.id, complete.seq) for event in told)

    def _find_value(self, wanted: str | Callable[[Any], object] | None) -> tuple[Any] | None:
        for index in range(self._value_from, len(self._read)):
            self._value_from = index + 1
            record = self._read[index]
            if record.kind is RecordKind.DATA and is_wanted(record.data, wanted):
                return (record.data,)
        return None

    async def _explain(self) -> str:
        pending = [record.data for record in self._read[self._turn_from :] if record.kind is RecordKind.DATA]
        lines = [f"on out since the last turn-complete: {list_values(pending) or 'nothing'}"]
        if (over := (await self.kit.sessions.sessions.get(HOME.id, self.name)).closed_at) is not None:
            lines.append(f"the session was closed at {over:%H:%M:%S}")
        lines += [
            f"run {run.id}: {run.status.value}" + (f" ({run.error})" if run.error else "") for run in await self._runs()
        ]
        lines += [f"raised: {error!r}" for error in self.kit.failures[-3:]]
        return "\n".join(lines)


@attrs.define(eq=False)
class Kit:
    """Runs agents in memory and in virtual time.

    Attributes:
        sessions: The facade of the process that lives now, for everything that has no method here.
    """

    _agents: Agents
    _runner: asyncio.Runner
    _count: int = attrs.field(init=False, default=0)
    _world: World = attrs.field(init=False, factory=World)
    _process: Process = attrs.field(init=False)
    _is_over: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.run(self._begin)

    @property
    def sessions(self) -> Sessions:
        """The facade of the process that lives now."""
        return self._process.sessions

    @property
    def events(self) -> list[Event]:
        """All that observers were told, oldest first."""
        return self._world.observer.events

    @property
    def failures(self) -> list[BaseException]:
        """What tasks have raised, inside of turns and outside, oldest first."""
        told = [event.exception for event in self.events if isinstance(event, RunEnded | TurnFailed)]
        return [error for error in told if error is not None]

    @property
    def now(self) -> datetime:
        """The virtual time; it begins on 1 January 2026."""
        return self.run(self._now)

    def start(
        self,
        task: str,
        *,
        name: str | None = None,
        payload: Mapping[str, Any] | None = None,
        idle_timeout: timedelta | None = None,
        expires_in: timedelta | None = None,
        **config: Any,
    ) -> SessionUnderTest:
        """Create a session of *task*, which starts its first run.

        Args:
            task: As registered.
            name: The external id; a fresh one if None.
            payload: What the task finds in ``run.payload``.
            idle_timeout: How long a run stays warm; 30 seconds if None.
            expires_in: When the session ends by itself; never if None.
            config: Further members of the trigger config, as the wire names them (``maxAttempts=1``).
        """
        assert self._agents.find(task) is not None, f"no task {task!r}; there are: {', '.join(self._agents.names)}"
        members: dict[str, Any] = {**config, "basePayload": dict(payload or {})}
        if idle_timeout is not None:
            members["idleTimeoutInSeconds"] = max(round(idle_timeout.total_seconds()), 1)
        external_id = ExternalId(name or f"session-{self.count()}")
        self.run(self._create, task, external_id, TriggerConfig(members), expires_in)
        return SessionUnderTest(self, external_id)

    def advance(self, by: timedelta) -> None:
        """Let *by* pass: everything that becomes due in that time happens, in its order."""
        self.run(anyio.sleep, by.total_seconds())

    def kill(self) -> None:
        """Let the process die as by ``kill -9``, and start another one on what is stored."""
        self.run(self._process.kill)
        self.run(self._begin)

    def restart(self) -> None:
        """Stop the process as a deployment does: runs are asked to end, and get 10 seconds. Start another one."""
        self.run(self._process.end)
        self.run(self._begin)

    def run(self, function: Callable[[*Args], Awaitable[T]], *args: *Args) -> T:
        """Call an async function on the kit's event loop, let everybody do what they can do now, and return its result.

        Raises:
            RuntimeError: Called from within an event loop (by a task, say), or after the kit's block.
        """
        _refuse_running_loop("the kit's calls are for the test, not for what runs on an event loop")
        if self._is_over:
            message = "the kit is over: use it inside the block of run_agents"
            raise RuntimeError(message)
        return self._runner.run(self._call(function, *args))

    def count(self) -> int:
        """Return the next whole number; for names."""
        self._count += 1
        return self._count

    async def _call(self, function: Callable[[*Args], Awaitable[T]], *args: *Args) -> T:
        result = await function(*args)
        await anyio.sleep(SETTLE_SECONDS)
        return result

    async def _create(
        self, task: str, external_id: ExternalId, config: TriggerConfig, expires_in: timedelta | None
    ) -> None:
        expires_at = None if expires_in is None else self._world.clock.now() + expires_in
        wanted = NewSession(
            type="chat.agent", task=task, trigger_config=config, external_id=external_id, expires_at=expires_at
        )
        await self.sessions.sessions.create(HOME, wanted)

    async def _begin(self) -> None:
        self._process = Process(self._world, self._agents)
        await self._process.begin()

    async def _now(self) -> datetime:
        return self._world.clock.now()

    def end(self) -> None:
        """Let the process die, so that nothing goes on after the test."""
        self.run(self._process.kill)
        self._is_over = True


@contextmanager
def run_agents(agents: Agents, *, io_patience: timedelta = timedelta()) -> Generator[Kit]:
    """Run *agents* inside the block. For plain test functions: the kit brings its own event loop.

    Args:
        agents: The tasks under test.
        io_patience: For tasks that talk to the world outside (sockets, threads): how long, in real time, to wait for it
            each time before virtual time goes on.

    Raises:
        RuntimeError: An event loop is running here already.
    """
    _refuse_running_loop("run_agents brings its own event loop: use it in a plain function, not in an async one")
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(io_patience)) as runner:
        kit = Kit(agents, runner)
        try:
            yield kit
        finally:
            kit.end()


def _refuse_running_loop(message: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(message)
