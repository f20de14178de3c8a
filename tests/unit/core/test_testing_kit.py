"""The test kit: what it promises to those who test their tasks with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from threading import Event, Timer

import anyio
import anyio.to_thread
import pytest

from sessions_core import chat
from sessions_core.agents import Agents as RawAgents
from sessions_core.agents import Run as RawRun
from sessions_core.domain.channel import Io
from sessions_core.domain.status import RunStatus
from sessions_core.errors import ClosedError
from sessions_core.testing import run_agents

agents = chat.Agents()
cleaned: list[str] = []


async def ticking() -> AsyncIterator[str]:
    for number in range(10):
        yield f"{number} "
        await anyio.sleep(1)


@agents.task("ticks")
async def ticks(run: chat.Run) -> None:
    async for turn in run.turns():
        async with turn:
            await turn.text(ticking())


@agents.task("moody")
async def moody(run: chat.Run) -> None:
    async for turn in run.turns():
        async with turn:
            if turn.text_input == "fail":
                raise LookupError("not my day")
            await turn.text(f"{turn.trigger}: {turn.text_input} {turn.action} {turn.metadata}")


@agents.task("stubborn")
async def stubborn(run: chat.Run) -> None:
    try:
        await run.inbox.wait()
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            cleaned.append("tried")
            await run.out.append("from the grave")
            cleaned.append("wrote")


@agents.task("raises")
async def raises(run: chat.Run) -> None:
    if await run.inbox.wait() is not None:
        raise ValueError("broken")


def test_everything_a_client_can_do() -> None:
    with run_agents(agents) as kit:
        session = kit.start("moody", name="mine", payload={"a": 1})
        assert session.send("hello", metadata={"user": 1}) == 0
        turn = session.expect_turn()
        assert (turn.text, turn.seq, turn.covered, turn.stopped) == (
            "submit-message: hello None {'user': 1}",
            7,
            0,
            False,
        )
        session.regenerate()
        assert session.expect_turn().text == "regenerate-message: hello None None"
        session.action({"type": "undo"})
        assert session.expect_turn().text == "action:  {'type': 'undo'} None"
        assert session.row.external_id == "mine"
        assert session.row.trigger_config.members["basePayload"] == {"a": 1}
        session.append(chat.close_message())
        assert [run.status for run in session.runs()] == [RunStatus.COMPLETED_SUCCESSFULLY]
        session.close("done")
        assert session.row.closed_reason == "done"
        with pytest.raises(ClosedError):
            session.send("too late")


def test_time_stands_still_until_it_is_told_to_pass() -> None:
    with run_agents(agents) as kit:
        session = kit.start("ticks")
        session.send("go")
        began = kit.now
        assert began - datetime(2026, 1, 1, tzinfo=UTC) < timedelta(seconds=1)
        assert len([one for one in session.records() if one.control is None]) == 4
        kit.advance(timedelta(seconds=3.5))
        assert len([one for one in session.records() if one.control is None]) == 7
        assert timedelta(seconds=3.5) <= kit.now - began < timedelta(seconds=3.6)


def test_idle_runs_leave_and_sessions_expire_as_time_passes() -> None:
    with run_agents(agents) as kit:
        session = kit.start("moody", idle_timeout=timedelta(minutes=2), expires_in=timedelta(hours=1))
        session.send("one")
        session.expect_turn()
        kit.advance(timedelta(seconds=110))
        assert [run.status.is_alive for run in session.runs()] == [True]
        kit.advance(timedelta(seconds=20))
        assert [run.status.is_alive for run in session.runs()] == [False]
        session.send("two")
        session.expect_turn()
        assert len(session.runs()) == 2
        kit.advance(timedelta(hours=1, minutes=2))
        assert session.row.sealed_at is not None
        with pytest.raises(ClosedError):
            session.send("three")


def test_a_stop_is_told_apart_from_an_end() -> None:
    with run_agents(agents) as kit:
        session = kit.start("ticks")
        session.send("go")
        kit.advance(timedelta(seconds=2.5))
        session.stop()
        turn = session.expect_turn()
        assert (turn.text, turn.stopped, turn.covered) == ("0 1 2 ", True, 1)
        session.send("go on")
        turn = session.expect_turn()
        assert (turn.text, turn.stopped) == ("0 1 2 3 4 5 6 7 8 9 ", False)


def test_a_stop_in_the_millisecond_after_the_end_has_stopped_nothing() -> None:
    with run_agents(agents) as kit:
        session = kit.start("moody")
        session.send("go")
        session.stop()
        assert not session.expect_turn().stopped


def test_values_can_be_expected_one_by_one() -> None:
    with run_agents(agents) as kit:
        session = kit.start("ticks")
        session.send("go")
        assert session.expect()["type"] == "start"
        assert session.expect("text-delta")["delta"] == "0 "
        assert session.expect("text-delta")["delta"] == "1 "
        assert session.expect(lambda chunk: chunk.get("delta", "").startswith("5"))["delta"] == "5 "
        assert session.expect_turn().text.startswith("0 1 ")
        with pytest.raises(AssertionError, match=r"no 'text-delta' came within 0:00:05"):
            session.expect("text-delta", timedelta(seconds=5))


def test_an_expectation_that_is_not_met_says_what_came_instead() -> None:
    with run_agents(agents) as kit:
        session = kit.start("ticks")
        session.send("go")
        with pytest.raises(AssertionError) as told:
            session.expect_turn(timedelta(seconds=1.5))
        message = str(told.value)
        assert "no turn was completed within 0:00:01.5" in message
        assert "start, start-step, text-start, text-delta '0 ', text-delta '1 '" in message
        assert "EXECUTING" in message


def test_a_task_that_fails_in_a_turn_fails_the_test_with_its_own_error() -> None:
    with run_agents(agents) as kit:
        session = kit.start("moody")
        session.send("fail")
        with pytest.raises(AssertionError, match="the turn failed") as told:
            session.expect_turn()
        assert isinstance(told.value.__cause__, LookupError)
        session.send("fail")
        assert session.expect_turn(may_fail=True).error == "The agent failed to answer this message."
        assert [str(error) for error in kit.failures] == ["not my day"] * 2


def test_a_task_that_fails_outside_of_a_turn_is_told_of() -> None:
    with run_agents(agents) as kit:
        session = kit.start("raises", maxAttempts=2)
        session.send("go")
        assert session.expect_turn(may_fail=True).error is not None, "it was given up"
        with pytest.raises(AssertionError, match=r"COMPLETED_WITH_ERRORS \(ValueError\)\n(.|\n)*broken"):
            session.expect_turn()


def test_what_a_killed_process_still_does_has_no_effect() -> None:
    cleaned.clear()
    with run_agents(agents) as kit:
        session = kit.start("stubborn")
        session.send("go")
        kit.kill()
        assert cleaned == ["tried"]
        assert session.records() == []
        assert [run.status for run in session.runs()] == [RunStatus.CRASHED, RunStatus.EXECUTING]


def test_a_restart_lets_a_turn_come_to_its_end() -> None:
    with run_agents(agents) as kit:
        session = kit.start("ticks")
        session.send("go")
        kit.advance(timedelta(seconds=5))
        kit.restart()
        assert session.expect_turn().text == "0 1 2 3 4 5 6 7 8 9 "
        assert [run.status for run in session.runs()] == [RunStatus.CANCELED]


def test_tasks_without_turns_are_tested_with_values() -> None:
    raw = RawAgents()

    @raw.task("upper")
    async def upper(run: RawRun) -> None:
        async for message in run.inbox:
            await run.out.append(message.data.upper())

    with run_agents(raw) as kit:
        session = kit.start("upper")
        session.append("hello")
        assert session.expect() == "HELLO"
        session.append({"a": 1})
        assert session.expect() == '{"A": 1}'
        assert len(session.records(Io.IN)) == 2


def test_a_task_may_talk_to_the_world_outside() -> None:
    outside = chat.Agents()

    @outside.task("threads")
    async def threads(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text(await anyio.to_thread.run_sync(lambda: "from a thread"))

    with run_agents(outside, io_patience=timedelta(milliseconds=200)) as kit:
        session = kit.start("threads")
        session.send("go")
        assert session.expect_turn(timedelta(seconds=1)).text == "from a thread"


def test_a_thread_that_works_on_is_waited_for_at_the_end() -> None:
    outside, may_end = chat.Agents(), Event()

    @outside.task("waits")
    async def waits(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await anyio.to_thread.run_sync(may_end.wait)

    with run_agents(outside) as kit:
        session = kit.start("waits")
        session.send("go")
        with pytest.raises(AssertionError, match="no turn was completed"):
            session.expect_turn()
        Timer(0.2, may_end.set).start()  # while the kit ends


def test_misuse_is_named() -> None:
    curious = chat.Agents()

    @curious.task("curious")
    async def asks(run: chat.Run) -> None:
        kit.advance(timedelta(seconds=1))

    with run_agents(curious) as kit:
        session = kit.start("curious", maxAttempts=1)
        assert "for the test, not for what runs on an event loop" in str(kit.failures[0])
    with pytest.raises(RuntimeError, match="the kit is over"):
        session.send("hello")


def test_kits_may_be_nested() -> None:
    with run_agents(agents) as outer, run_agents(agents) as inner:
        for kit in (outer, inner, outer):
            session = kit.start("moody")
            session.send("go")
            assert session.expect_turn().text.startswith("submit-message: go")


def test_the_end_of_a_session_is_no_turn() -> None:
    with run_agents(agents) as kit:
        session = kit.start("moody")
        session.close()
        with pytest.raises(
            AssertionError, match="on out since the last turn-complete: nothing\nthe session was closed at"
        ):
            session.expect_turn()


def test_records_that_were_trimmed_are_not_missed() -> None:
    raw = RawAgents()

    @raw.task("trims")
    async def trims(run: RawRun) -> None:
        async for message in run.inbox:
            await run.out.append(1, 2, message.data)
            await run.out.trim(run.out.tail - 1)

    with run_agents(raw) as kit:
        session = kit.start("trims")
        for text in ("a", "b", "c"):
            session.append(text)
            assert session.expect(lambda value: isinstance(value, str)) == text


def test_every_test_begins_at_the_same_moment_with_the_same_ids() -> None:
    def story() -> tuple[datetime, str, str]:
        with run_agents(agents) as kit:
            session = kit.start("moody")
            session.send("hello")
            session.expect_turn()
            return kit.now, session.row.id, session.runs()[0].id

    assert story() == story()


def test_a_task_that_is_not_there_is_named() -> None:
    with run_agents(agents) as kit, pytest.raises(AssertionError, match="no task 'tick'; there are: ticks, moody"):
        kit.start("tick")


async def test_it_says_that_it_is_for_plain_functions(anyio_backend_name: str) -> None:
    if anyio_backend_name == "asyncio":
        with pytest.raises(RuntimeError, match="plain function"), run_agents(agents):
            pass
