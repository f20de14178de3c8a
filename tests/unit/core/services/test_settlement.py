"""What becomes of input that an ended run left behind."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import anyio
import attrs
import pytest

from sessions_core import chat
from sessions_core.domain.channel import TURN_COMPLETE, Io, committed_by, control_record, data_record
from sessions_core.domain.events import InputGivenUp, RunRecovered
from sessions_core.domain.guard import UNTOUCHED, Guard
from sessions_core.domain.ids import PartId
from sessions_core.domain.run import Progress, RunRecord
from sessions_core.domain.status import RunStatus
from sessions_core.facade import Sessions
from sessions_core.services.settlement import GIVEN_UP_TEXT, backoff, failures_at
from unit.core.chats import HOME, NAME, data_of, echo_agents, say, spec
from unit.core.promises import check_rest, until_rest
from unit.core.taps import Tap
from unit.core.world import World

# --- Rules ----------------------------------------------------------------------------------------


def ended(status: RunStatus, *, cursor: int = 3, failures: int = 0) -> RunRecord:
    run: Any = object.__new__(RunRecord)
    for name, value in {"status": status, "start": Progress(cursor, 0), "failures": failures}.items():
        object.__setattr__(run, name, value)
    checked: RunRecord = run
    return checked


@pytest.mark.parametrize(
    ("status", "cursor", "before", "now"),
    [
        (RunStatus.CRASHED, 3, 0, 1),
        (RunStatus.CRASHED, 3, 2, 3),
        (RunStatus.TIMED_OUT, 3, 1, 2),
        (RunStatus.COMPLETED_WITH_ERRORS, 3, 1, 2),
        (RunStatus.CRASHED, 4, 2, 1),
        (RunStatus.COMPLETED_SUCCESSFULLY, 3, 2, 3),
        (RunStatus.COMPLETED_SUCCESSFULLY, 4, 2, 0),
        (RunStatus.CANCELED, 3, 2, 2),
        (RunStatus.CANCELED, 4, 2, 0),
        (RunStatus.EXPIRED, 3, 2, 3),
    ],
)
def test_failures_count_while_the_cursor_stands_still(status: RunStatus, cursor: int, before: int, now: int) -> None:
    assert failures_at(ended(status, failures=before), Progress(cursor, 0)) == now


def test_the_pause_doubles_up_to_a_minute() -> None:
    seconds = [backoff(failures).total_seconds() for failures in range(11)]
    assert seconds == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert backoff(10**6) == timedelta(minutes=1)


# --- Progress -------------------------------------------------------------------------------------


@pytest.fixture
def world() -> World:
    return World()


def turn_complete(covered: int | str | None) -> Any:
    return control_record(TURN_COMPLETE, {} if covered is None else {"session-in-event-id": str(covered)})


@pytest.mark.parametrize(
    ("script", "start", "cursor"),
    [
        ([], Progress(), -1),
        ([], Progress(1, 0), 1),
        (["data"], Progress(), -1),
        ([turn_complete(0)], Progress(), 0),
        ([turn_complete(0), "data", turn_complete(2)], Progress(), 2),
        ([turn_complete(2)] + ["data"] * 200, Progress(), 2),
        ([turn_complete(1)], Progress(2, 0), 2),
        ([turn_complete(99)], Progress(), 3),
        ([turn_complete(2), turn_complete(None)], Progress(1, 0), 1),
        ([turn_complete(2), "data"], Progress(0, 1), 0),
        ([control_record("upgrade-required", {"session-in-event-id": "2"})], Progress(), -1),
    ],
)
async def test_progress_is_read_from_the_newest_turn_complete(
    world: World, script: list[Any], start: Progress, cursor: int
) -> None:
    sessions = world.sessions()
    session = (await sessions.sessions.create(HOME, spec())).session
    for number in range(4):
        await say(sessions, f"m{number}")
    for number, entry in enumerate(script):
        record = data_record(number, PartId(str(number)), dedupe=False) if entry == "data" else entry
        await world.log.append(session.channel(Io.OUT), [record], guard=UNTOUCHED)
    progress = await sessions.attempts.settlement.progress(session, start)
    assert progress == Progress(cursor, len(script))


async def test_finding_the_progress_does_not_read_what_is_known(world: World) -> None:
    class Counting(Tap):
        reads = 0

        async def before(self, call: str) -> None:
            self.reads += call == "ChannelLog.read_back"

    sessions, tap = world.sessions(), Counting()
    session = (await sessions.sessions.create(HOME, spec())).session
    records = [data_record(n, PartId(str(n)), dedupe=False) for n in range(500)]
    await world.log.append(session.channel(Io.OUT), records, guard=UNTOUCHED)
    await world.sessions(tap).attempts.settlement.progress(session, Progress(-1, 490))
    assert tap.reads == 1


# --- Settling -------------------------------------------------------------------------------------


def sabotaged(*, fails: int, kind: type[Exception] = RuntimeError) -> chat.Agents:
    """Return agents whose task fails at each text that starts with ``bad``, *fails* times in all."""
    left = [fails]

    async def fragile(run: chat.Run) -> None:
        async for turn in run.turns():
            if turn.text_input.startswith("bad") and left[0]:
                left[0] -= 1
                await run.out.append({"type": "text-delta", "delta": "half"})
                raise kind(turn.text_input)
            async with turn:
                await turn.text(turn.text_input)

    return echo_agents({"fragile": fragile})


async def answers(world: World) -> list[tuple[int | None, bool]]:
    """Return what each turn-complete covers, and whether an error was told before it."""
    result, error = [], False
    for record in await world.records(Io.OUT):
        if record.control is None:
            error = error or data_of(record)["type"] == "error"
        else:
            result.append((committed_by(record), error))
            error = False
    return result


async def test_input_that_a_failed_run_left_is_answered_by_its_successor(world: World) -> None:
    async with world.process(agents=sabotaged(fails=1)) as sessions:
        await sessions.sessions.create(HOME, spec("fragile"))
        for text in ("bad", "good"):
            await say(sessions, text)
        await until_rest(world)
    assert await answers(world) == [(0, False), (1, False)]
    assert [event.failures for event in world.observer.of(RunRecovered)] == [1]
    first, second = world.runs()
    assert (first.status, first.error) == (RunStatus.COMPLETED_WITH_ERRORS, "RuntimeError")
    assert second.reason == "continuation"


async def test_a_poison_message_is_given_up_after_max_attempts_and_the_next_gets_its_chance(world: World) -> None:
    async with world.process(agents=sabotaged(fails=99)) as sessions:
        await sessions.sessions.create(HOME, spec("fragile", maxAttempts=4))
        for text in ("good", "bad", "better"):
            await say(sessions, text)
        began = anyio.current_time()
        await until_rest(world)
        assert anyio.current_time() - began < 30
    assert await answers(world) == [(0, False), (1, True), (2, False)]
    assert [event.cursor for event in world.observer.of(InputGivenUp)] == [1]
    statuses = [run.status for run in world.runs()]
    assert statuses == [RunStatus.COMPLETED_WITH_ERRORS] * 4 + [RunStatus.COMPLETED_SUCCESSFULLY]
    texts = [data_of(record).get("errorText") for record in await world.records(Io.OUT) if record.control is None]
    assert texts.count(GIVEN_UP_TEXT) == 1


async def test_every_poison_message_has_its_own_attempts(world: World) -> None:
    async with world.process(agents=sabotaged(fails=99)) as sessions:
        await sessions.sessions.create(HOME, spec("fragile", maxAttempts=2))
        for text in ("bad 1", "bad 2"):
            await say(sessions, text)
        await until_rest(world)
    assert await answers(world) == [(0, True), (1, True)]
    assert len(world.runs()) == 4


async def test_between_attempts_there_is_a_growing_pause(world: World) -> None:
    async with world.process(agents=sabotaged(fails=99)) as sessions:
        await sessions.sessions.create(HOME, spec("fragile", maxAttempts=5))
        await say(sessions, "bad")
        await until_rest(world)
    starts = [run.started_at for run in world.runs()]
    pauses = [(b - a).total_seconds() for a, b in pairwise(starts) if a and b]
    assert len(pauses) == 4
    for pause, least in zip(pauses, (0, 1, 2, 4), strict=True):
        assert least <= pause <= least + 2


async def test_a_run_that_was_timed_out_is_a_failure(world: World) -> None:
    async def slow(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await anyio.sleep(100)

    async with world.process(agents=echo_agents({"slow": slow})) as sessions:
        await sessions.sessions.create(HOME, spec("slow", maxDuration=5, maxAttempts=2))
        await say(sessions, "hello")
        await until_rest(world)
    assert await answers(world) == [(0, True)]
    assert [run.status for run in world.runs()] == [RunStatus.TIMED_OUT] * 2


async def test_a_clean_end_leaves_in_idle(world: World) -> None:
    async with world.process() as sessions:
        await sessions.sessions.create(HOME, spec())
        await say(sessions, "hello")
        await until_rest(world)
    (run,) = world.runs()
    assert run.status is RunStatus.COMPLETED_SUCCESSFULLY
    assert run.end == Progress(0, 9)
    assert (await world.log.tail(world.session().channel(Io.IN))).guard == Guard.idle(1)


async def test_a_record_that_comes_while_a_run_is_settled_is_not_shut_in(world: World) -> None:
    """It is stored after the tail was read and before ``in`` becomes idle."""
    sessions = world.sessions()
    await sessions.sessions.create(HOME, spec())
    await say(sessions, "one")
    run = world.tables.save_run(
        attrs.evolve(world.runs()[0], status=RunStatus.COMPLETED_SUCCESSFULLY, end=Progress(0, 0))
    )

    class Late(Tap):
        has_said = False

        async def before(self, call: str) -> None:
            if call == "ChannelLog.set_guard" and not self.has_said:
                self.has_said = True
                await say(sessions, "two")

    await world.sessions(Late()).attempts.settlement.settle(run)
    assert len(world.runs()) == 2, "the record is taken up by a new run"
    assert (await world.log.tail(world.session().channel(Io.IN))).guard.is_live


async def test_a_replaced_run_is_settled_without_a_word(world: World) -> None:
    sessions = world.sessions()
    created = await sessions.sessions.create(HOME, spec())
    await sessions.sessions.end_and_continue(HOME.id, NAME, created.run_id, "upgrade")
    old = world.tables.save_run(attrs.evolve(world.runs()[0], status=RunStatus.CRASHED))
    await say(sessions, "hello")
    await sessions.attempts.settlement.settle(old)
    assert len(world.runs()) == 2
    assert world.runs()[0].settled_at is not None


async def test_nothing_is_answered_for_a_closed_session(world: World) -> None:
    sessions = world.sessions()
    await sessions.sessions.create(HOME, spec())
    await say(sessions, "hello")
    run = world.tables.save_run(attrs.evolve(world.runs()[0], status=RunStatus.CRASHED, failures=9))
    await world.ports().sessions.close(HOME.id, world.session().id, None)
    await sessions.attempts.settlement.settle(run)
    assert len(world.runs()) == 1
    assert await world.records(Io.OUT) == []


async def test_a_close_in_the_middle_of_giving_up_keeps_out_closed(world: World) -> None:
    sessions = world.sessions()
    await sessions.sessions.create(HOME, spec())
    await say(sessions, "hello")
    run = world.tables.save_run(attrs.evolve(world.runs()[0], status=RunStatus.CRASHED, failures=9))

    class Closing(Tap):
        calls = 0

        async def before(self, call: str) -> None:
            self.calls += call == "ChannelLog.tail"
            if call == "ChannelLog.tail" and self.calls == 4:
                await sessions.sessions.close(HOME.id, NAME, "in between")

    await world.sessions(Closing()).attempts.settlement.settle(run)
    assert world.session().closed_reason == "in between"
    assert (await world.records(Io.OUT))[-1].header("session-closed") == "true"
    assert len(await world.records(Io.OUT)) == 1
    assert len(world.runs()) == 1


# --- Tasks that do not play along ------------------------------------------------------------------


async def ignores(run: chat.Run) -> None:
    """Take no notice of input."""


async def takes_without_completing(run: chat.Run) -> None:
    while await run.inbox.wait_with_idle_timeout(run.idle_timeout) is not None:
        pass


async def takes_one(run: chat.Run) -> None:
    await run.inbox.wait(1)


async def skips_kinds(run: chat.Run) -> None:
    async for turn in run.turns():
        async with turn:
            pass


@pytest.mark.parametrize("task", [ignores, takes_without_completing, takes_one, skips_kinds])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_tasks_that_do_not_answer_do_not_loop(world: World, task: Any, when: str) -> None:
    async with world.process(agents=echo_agents({"odd": task})) as sessions:
        if when == "after":
            await sessions.sessions.create(HOME, spec("odd"))
            await anyio.sleep(20)
        else:
            await world.sessions().sessions.create(HOME, spec("odd"))
        session = world.session()
        for _ in range(3):
            await sessions.channels.append_text(session, Io.IN, '{"kind":"unknown"}')
        await anyio.sleep(100)
        before = len(world.runs())
        await anyio.sleep(300)
        assert len(world.runs()) == before <= 6
        await check_rest(world)


async def test_a_stop_after_the_turn_does_not_keep_the_run(world: World) -> None:
    async with world.process() as sessions:
        session = (await sessions.sessions.create(HOME, spec())).session
        await say(sessions, "hello")
        await anyio.sleep(1)
        await sessions.channels.append_text(session, Io.IN, '{"kind":"stop"}')
        await anyio.sleep(20)
        await check_rest(world)
        assert len(world.runs()) == 1


async def test_records_on_in_that_are_no_data_do_not_keep_a_run(world: World) -> None:
    async with world.process() as sessions:
        session = (await sessions.sessions.create(HOME, spec())).session
        await anyio.sleep(1)
        await sessions.channels.append(session, Io.IN, [control_record("note")])
        await anyio.sleep(20)
        await check_rest(world)
        assert len(world.runs()) == 1


async def test_commands_on_in_are_no_unanswered_input(world: World) -> None:
    """Some logs write one whenever a guard changes."""

    async def falls(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text(turn.text_input)
            if turn.text_input == "last":
                await world.log.trim(world.session().channel(Io.IN), 0, guard=Guard.live(world.runs()[-1].version))
                raise RuntimeError

    async with world.process(agents=echo_agents({"falls": falls})) as sessions:
        await sessions.sessions.create(HOME, spec("falls", maxAttempts=2))
        await say(sessions, "first")
        await say(sessions, "last")
        await until_rest(world)
        assert len(world.runs()) == 1
        await say(sessions, "next")
        await until_rest(world)
    assert [error for _, error in await answers(world)] == [False, False, False]


async def test_a_poison_message_is_given_up_and_not_the_command_before_it(world: World) -> None:
    async with world.process(agents=sabotaged(fails=99)) as sessions:
        session = (await sessions.sessions.create(HOME, spec("fragile", maxAttempts=2))).session
        await world.log.trim(session.channel(Io.IN), 0, guard=UNTOUCHED)
        await say(sessions, "bad")
        await until_rest(world)
    assert await answers(world) == [(1, True)]
    assert len(world.runs()) == 2


# --- Recovery by the only owner --------------------------------------------------------------------


async def test_an_owner_repairs_everything_before_it_starts(world: World) -> None:
    sessions: Sessions = world.sessions()
    await sessions.sessions.create(HOME, spec())
    await say(sessions, "hello")
    run = world.runs()[0]
    assert await world.ports().runs.begin(run.id, 1) is not None
    await sessions.sweep.recover()
    assert [one.status for one in world.runs()] == [RunStatus.CRASHED, RunStatus.PENDING]
    assert world.runs()[0].settled_at is not None
    await sessions.sweep.recover()
    assert len(world.runs()) == 2
    assert world.runs()[1].dispatched_at is None, "its queue died, too"
