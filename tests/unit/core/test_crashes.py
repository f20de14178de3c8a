"""A process that dies at every single step of every operation.

Each call of a port is two steps: before it has its effect, and after it. An operation is carried out again and again in
fresh worlds; each time its process dies one step later, until the operation gets to its end unharmed. After each death
a new process takes over the same durable state, the client tries again, and the promises must hold.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import anyio
import attrs
import pytest

from sessions_core import chat
from sessions_core.domain.channel import Io, RecordKind
from sessions_core.domain.waitpoint import WaitpointStatus
from sessions_core.errors import (
    ChannelUnavailableError,
    ClosedError,
    DispatcherUnavailableError,
    SessionsError,
    StoreUnavailableError,
)
from sessions_core.facade import Sessions
from sessions_core.services.wait_service import WaitRequest
from unit.core.chats import HOME, NAME, data_of, echo_agents, said, say, spec
from unit.core.promises import check_promises, until_rest
from unit.core.taps import CrashAt, FailAt, Tap
from unit.core.world import World, run_virtually

MOST_STEPS = 400


@attrs.define(eq=False)
class Case:
    """An operation under test, and what its client has been told.

    Attributes:
        prepare: Done by a healthy process before.
        act: The operation. Must be safe to repeat, as it is repeated after a death.
        settle_seconds: For how long the process may be killed after the operation has returned.
    """

    prepare: Callable[[Case, Sessions], Awaitable[object]]
    act: Callable[[Case, Sessions], Awaitable[object]]
    settle_seconds: float = 0.0
    check: Callable[[Case], Awaitable[object]] | None = None
    tries: int = attrs.field(init=False, default=0)
    world: World = attrs.field(init=False, factory=World)
    acknowledged: dict[str, int] = attrs.field(init=False, factory=dict)

    async def say(self, sessions: Sessions, text: str) -> None:
        self.acknowledged[text] = await say(sessions, text)

    async def create(self, sessions: Sessions) -> None:
        await sessions.sessions.create(HOME, spec("mover"))


def movers() -> chat.Agents:
    """Return agents whose task hands over when it is told to."""
    agents = echo_agents()

    @agents.task("mover")
    async def mover(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.data("by", {"epoch": run.record.epoch, "seq": turn.seq})
                await turn.text(f"you said: {turn.text_input}")
            if turn.text_input.startswith("move"):
                await run.end_and_continue("upgrade")
                return

    return agents


# --- The operations -------------------------------------------------------------------------------


async def nothing(case: Case, sessions: Sessions) -> None:
    """Need no preparation."""


async def create(case: Case, sessions: Sessions) -> None:
    await case.create(sessions)


async def idle_session(case: Case, sessions: Sessions) -> None:
    """Have a session whose run has answered once and has left."""
    await case.create(sessions)
    await case.say(sessions, "before")
    await anyio.sleep(10)
    assert not any(run.is_alive for run in case.world.runs())


async def create_and_say(case: Case, sessions: Sessions) -> None:
    await case.create(sessions)
    await case.say(sessions, "hello")


async def say_once(case: Case, sessions: Sessions) -> None:
    await case.say(sessions, "hello")


async def move(case: Case, sessions: Sessions) -> None:
    await case.say(sessions, "move on")
    await case.say(sessions, "after")


async def say_and_close(case: Case, sessions: Sessions) -> None:
    try:
        await case.say(sessions, "last words")
    except ClosedError:
        assert case.tries > 1
    await close(case, sessions)


async def close(case: Case, sessions: Sessions) -> None:
    reason = f"reason {case.tries}"
    closed = await sessions.sessions.close(HOME.id, NAME, reason)
    assert closed.sealed_at is not None
    with pytest.raises(ClosedError):
        await say(sessions, f"too late {case.tries}")


async def leave_and_say(case: Case, sessions: Sessions) -> None:
    """Say something in the very moment in which the run leaves."""
    await case.say(sessions, "one")
    await anyio.sleep(3)
    await case.say(sessions, "two")


async def wait(case: Case, sessions: Sessions) -> None:
    """Create a wait, then let its record come."""
    run_id = case.world.session().current_run_id
    assert run_id is not None
    request = WaitRequest(session=NAME, io=Io.IN, idempotency_key="k", idempotency_ttl="1h", timeout="1h", after_seq=0)
    created = await sessions.waits.create(HOME.id, run_id, request)
    await case.say(sessions, "hello")
    ended = await sessions.waits.wait(HOME.id, created.waitpoint.id, timedelta(minutes=2))
    assert ended.status is WaitpointStatus.COMPLETED


async def waited(case: Case) -> None:
    (waitpoint,) = case.world.waitpoints._rows.values()
    assert (waitpoint.status, waitpoint.seq) == (WaitpointStatus.COMPLETED, 1)
    assert waitpoint.output == said("hello")


async def keep_the_first_reason(case: Case) -> None:
    session = case.world.session()
    assert session.closed_at is not None
    assert session.closed_reason in {f"reason {number}" for number in range(1, case.tries + 1)}


CASES: dict[str, Callable[[], Case]] = {
    "create": lambda: Case(nothing, create, 1),
    "create and the whole run": lambda: Case(nothing, create_and_say, 8),
    "append to an idle session": lambda: Case(idle_session, say_once, 8),
    "leave while something is said": lambda: Case(create, leave_and_say, 8),
    "end and continue": lambda: Case(create, move, 8),
    "close an idle session": lambda: Case(idle_session, close, 1, keep_the_first_reason),
    "close while it is answering": lambda: Case(create, say_and_close, 2, keep_the_first_reason),
    "wait": lambda: Case(idle_session, wait, 1, waited),
}


async def tell(case: Case, tap: CrashAt | FailAt, *, is_owner: bool) -> None:
    """Prepare, act under *tap*, and let a fresh process finish what is left."""
    async with case.world.process(agents=movers()) as sessions:
        await case.prepare(case, sessions)
    async with case.world.process(tap, movers()) as sessions:
        tap.is_armed = True
        await _try_until_done(case, sessions, tap)
        await anyio.sleep(case.settle_seconds)
        tap.is_armed = getattr(tap, "is_dead", False)
    if is_owner:
        # What a process that owns its data does before anything else.
        case.world.engine.jobs.clear()
        await case.world.sessions(agents=movers()).sweep.recover()
    async with case.world.process(agents=movers()) as sessions:
        if getattr(tap, "is_dead", False):
            await _try_until_done(case, sessions, tap)
        await until_rest(case.world)
        await check_promises(case.world, case.acknowledged)
        assert await errors_shown(case.world) == [], "what failed was not the agent"
        if case.check is not None:
            await case.check(case)


async def errors_shown(world: World) -> list[object]:
    """Return the errors that stand in answers."""
    chunks = [data_of(record) for record in await world.records(Io.OUT) if record.kind is RecordKind.DATA]
    return [chunk for chunk in chunks if chunk["type"] == "error"]


async def _try_until_done(case: Case, sessions: Sessions, tap: Tap) -> None:
    for _ in range(20):
        case.tries += 1
        try:
            await case.act(case, sessions)
        except SessionsError:
            await anyio.sleep(1)
        else:
            return
    raise AssertionError("the client never succeeded")


@pytest.mark.parametrize("is_owner", [pytest.param(True, id="owner"), pytest.param(False, id="successor")])
@pytest.mark.parametrize("name", CASES)
def test_a_process_may_die_at_any_step(name: str, is_owner: bool) -> None:
    for step in range(MOST_STEPS):
        tap = CrashAt(step)
        case = CASES[name]()
        try:
            run_virtually(partial(tell, case, tap, is_owner=is_owner))
        except BaseException as error:
            error.add_note(f"dead at step {step}: {tap.seen[-3:]}")
            raise
        if not tap.is_dead:
            assert step > 5, "nothing was tried"
            return
    raise AssertionError("there are more steps than were tried")


def unavailable(call: str) -> SessionsError:
    """Return the error with which the port of *call* gives no answer."""
    system = call.partition(".")[0]
    if system == "ChannelLog":
        return ChannelUnavailableError()
    return DispatcherUnavailableError() if system == "EngineDispatcher" else StoreUnavailableError()


@pytest.mark.parametrize("name", CASES)
def test_any_call_may_fail_once_while_the_process_lives_on(name: str) -> None:
    for step in range(MOST_STEPS):
        tap = FailAt(step, unavailable)
        case = CASES[name]()
        try:
            run_virtually(partial(tell, case, tap, is_owner=False))
        except BaseException as error:
            error.add_note(f"failed at step {step}: {tap.seen[-3:]}")
            raise
        if not tap.has_failed:
            assert step > 5, "nothing was tried"
            return
    raise AssertionError("there are more steps than were tried")
