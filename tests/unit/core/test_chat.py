"""Chat turns: what they write, and how they end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from sessions_adapters.profiles import open_sessions
from sessions_core import chat
from sessions_core.domain.channel import SESSION_CLOSED, TURN_COMPLETE, Io, Record, RecordKind, data_record
from sessions_core.domain.events import RunEnded, TurnFailed, TurnStopped
from sessions_core.domain.ids import PartId
from sessions_core.domain.status import RunStatus
from sessions_core.errors import SessionClosedError
from sessions_core.facade import Sessions
from sessions_core.inbox import PENDING_RECORDS
from unit.core.kit import HOME, NAME, STOP, Tap, World, check_rest, data_of, echo_agents, said, say, spec, until_rest


@pytest.fixture
def world() -> World:
    return World()


def agents(task: Any) -> chat.Agents:
    return echo_agents({"task": task})


def written(records: list[Record]) -> list[str]:
    """Return the types of chunks and the subtypes of control records, with what the latter cover."""
    result = []
    for record in records:
        if record.kind is RecordKind.DATA:
            result.append(data_of(record)["type"])
        elif record.control is not None:
            result.append(f"{record.control}:{record.header('session-in-event-id')}")
    return result


async def append(sessions: Sessions, text: str) -> int:
    session = await sessions.sessions.get(HOME.id, NAME)
    return (await sessions.channels.append_text(session, Io.IN, text)).seq


async def talk(world: World, task: Any, *texts: str, pause: float = 1.0, **config: Any) -> list[Record]:
    """Append *texts*, a pause after each, let everything come to rest, and return what was written."""
    async with world.process(agents=agents(task)) as sessions:
        await sessions.sessions.create(HOME, spec("task", **config))
        for text in texts:
            await append(sessions, text)
            await anyio.sleep(pause)
        await until_rest(world)
    return await world.records(Io.OUT)


async def plain(run: chat.Run) -> None:
    async for turn in run.turns():
        async with turn:
            await turn.text(f"{turn.trigger} {turn.text_input}")


async def slow(run: chat.Run) -> None:
    async def words() -> AsyncIterator[str]:
        for number in range(20):
            yield f"{number} "
            await anyio.sleep(0.1)

    async for turn in run.turns():
        async with turn:
            await turn.text(words())


PLAIN = ["start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"]


# --- Chunks ---------------------------------------------------------------------------------------


async def test_a_plain_answer_has_its_chunks_in_order_and_ends_with_a_turn_complete(world: World) -> None:
    records = await talk(world, plain, said("hello"), said("again"))
    assert written(records) == [*PLAIN, "turn-complete:0", *PLAIN, "turn-complete:1"]
    assert data_of(records[0])["messageId"] != data_of(records[8])["messageId"]
    text_ids = {data_of(record)["id"] for record in records[2:5]}
    assert len(text_ids) == 1
    assert data_of(records[3])["delta"] == "submit-message hello"
    assert len(world.runs()) == 1


async def test_a_streamed_answer_writes_each_delta_as_it_comes(world: World) -> None:
    records = await talk(world, slow, said("go"), pause=5)
    assert written(records) == [*PLAIN[:3], *["text-delta"] * 20, *PLAIN[4:], "turn-complete:0"]
    times = [record.timestamp for record in records if data_of_type(record) == "text-delta"]
    assert times[-1] - times[0] == 1900


def data_of_type(record: Record) -> str | None:
    return data_of(record)["type"] if record.kind is RecordKind.DATA else None


async def test_a_turn_without_output_is_still_completed(world: World) -> None:
    async def silent(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                pass

    assert written(await talk(world, silent, said("a"), said("b"))) == ["turn-complete:0", "turn-complete:1"]


async def test_data_parts_and_several_texts_belong_to_one_message(world: World) -> None:
    async def rich(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.data("weather", {"sun": True})
                await turn.text("one")
                await turn.text("two")

    records = await talk(world, rich, said("x"))
    texts = ["text-start", "text-delta", "text-end"]
    expected = ["start", "start-step", "data-weather", *texts, *texts, "finish-step", "finish", "turn-complete:0"]
    assert written(records) == expected
    assert {data_of(record)["id"] for record in records[3:9]} == {"text-1", "text-2"}


# --- What counts as input --------------------------------------------------------------------------


async def test_other_kinds_are_skipped_and_count_as_read(world: World) -> None:
    others = [
        "plain text",
        "[1]",
        "{}",
        '{"kind": 7}',
        '{"kind": "handover"}',
        '{"kind": "handover-skip"}',
        '{"kind": "message", "payload": {"trigger": "preload"}}',
        '{"kind": "message", "payload": {"trigger": "handover-prepare", "headStartMessages": []}}',
        STOP,
        "[" * 5000,
    ]
    records = await talk(world, plain, *others, said("hello"), *others, pause=0)
    assert written(records) == [*PLAIN, f"turn-complete:{len(others)}"]
    (run,) = world.runs()
    assert run.end is not None
    assert run.end.cursor == 2 * len(others)


async def test_a_message_sent_as_an_object_is_understood_too(world: World) -> None:
    assert chat.Input.parse(json.loads(said("x"))) == chat.Input.parse(said("x"))
    assert chat.Input.parse(None) is None
    assert chat.text_of(None) == ""
    assert (
        chat.text_of({"parts": [{"type": "text", "text": 3}, {"type": "file"}, "x", {"type": "text", "text": "a"}]})
        == "a"
    )


async def test_a_regeneration_finds_the_last_message(world: World) -> None:
    again = said("", trigger="regenerate-message", messageId="a1")
    records = await talk(world, plain, said("first"), said("second"), STOP, again, *["noise"] * 70, again, pause=0.1)
    deltas = [data_of(record)["delta"] for record in records if data_of_type(record) == "text-delta"]
    assert deltas == ["submit-message first", "submit-message second"] + ["regenerate-message second"] * 2


async def test_a_regeneration_looks_for_what_a_user_said(world: World) -> None:
    resolved = {"id": "a", "role": "assistant", "parts": [{"type": "text", "text": "tool results"}]}
    again = said("", trigger="regenerate-message")
    records = await talk(world, plain, said("first"), said("", message=resolved), again)
    deltas = [data_of(record)["delta"] for record in records if data_of_type(record) == "text-delta"]
    assert deltas == ["submit-message first", "submit-message tool results", "regenerate-message first"]


async def test_a_regeneration_without_any_message_still_completes(world: World) -> None:
    records = await talk(world, plain, said("", trigger="regenerate-message"))
    assert written(records) == [*PLAIN, "turn-complete:0"]


async def test_an_action_is_a_turn_with_its_action(world: World) -> None:
    seen: list[Any] = []

    async def acts(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                seen.append((turn.trigger, turn.action, turn.message, turn.text_input))

    records = await talk(world, acts, said("", trigger="action", action={"type": "undo"}))
    assert seen == [("action", {"type": "undo"}, None, "")]
    assert written(records) == ["turn-complete:0"]


async def test_what_clients_send_can_be_made(world: World) -> None:
    made = chat.user_message("hi", metadata={"user": 1})
    assert made["payload"]["message"]["parts"] == [{"type": "text", "text": "hi"}]
    assert made["payload"]["message"]["id"] != chat.user_message("hi")["payload"]["message"]["id"]
    assert chat.user_message("hi", id="u-1") == {
        "kind": "message",
        "payload": {
            "trigger": "submit-message",
            "message": {"id": "u-1", "role": "user", "parts": [{"type": "text", "text": "hi"}]},
        },
    }
    inputs = [made, chat.regenerate_message(), chat.action_message("undo"), chat.stop_message(), chat.close_message()]
    seen: list[Any] = []

    async def notes(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                seen.append((turn.trigger, turn.text_input, turn.action, turn.metadata))

    await talk(world, notes, *map(json.dumps, inputs))
    expected = [("submit-message", "hi", None, {"user": 1}), ("regenerate-message", "hi", None, None)]
    assert seen == [*expected, ("action", "", "undo", None)]
    assert world.runs()[0].status is RunStatus.COMPLETED_SUCCESSFULLY


async def test_a_data_part_may_have_an_id(world: World) -> None:
    async def named(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.data("x", 1, id="one")

    records = await talk(world, named, said("go"))
    assert data_of(records[2]) == {"type": "data-x", "data": 1, "id": "one"}


# --- Stop -----------------------------------------------------------------------------------------


async def test_a_stop_cuts_the_answer_short_and_completes_the_turn(world: World) -> None:
    records = await talk(world, slow, said("go"), STOP, said("go on"), pause=0.55)
    first = written(records)[: written(records).index("turn-complete:1") + 1]
    assert first == [*PLAIN[:3], *["text-delta"] * 6, *PLAIN[4:], "turn-complete:1"]
    assert written(records)[-1] == "turn-complete:2"
    assert written(records).count("text-delta") == 26
    assert len(world.runs()) == 1


async def test_a_stop_does_not_claim_to_cover_a_message_that_waits(world: World) -> None:
    async with world.process(agents=agents(slow)) as sessions:
        await sessions.sessions.create(HOME, spec("task"))
        await append(sessions, said("one"))
        await anyio.sleep(0.35)
        await append(sessions, said("two"))
        await append(sessions, STOP)
        await until_rest(world)
    types = written(await world.records(Io.OUT))
    assert [name for name in types if name.startswith("turn")] == ["turn-complete:0", "turn-complete:1"]
    assert types.count("text-delta") == 24
    assert len(world.runs()) == 1, "the run left although a stop came after the last message"


async def test_stopping_twice_does_not_stop_the_message_that_waits(world: World) -> None:
    async with world.process(agents=agents(slow)) as sessions:
        await sessions.sessions.create(HOME, spec("task"))
        await append(sessions, said("one"))
        await anyio.sleep(0.35)
        records = [data_record(text, PartId(f"p{part}")) for part, text in enumerate((said("two"), STOP, STOP))]
        await sessions.channels.append(world.session(), Io.IN, records)
        await until_rest(world)
    types = written(await world.records(Io.OUT))
    assert [name for name in types if name.startswith("turn")] == ["turn-complete:0", "turn-complete:1"]
    assert types.count("text-delta") == 24, "the second answer is whole"


async def test_a_stop_for_an_earlier_turn_does_not_touch_this_one(world: World) -> None:
    records = await talk(world, plain, said("one"), STOP, said("two"), STOP, STOP, pause=0.5)
    assert [n for n in written(records) if n.startswith("turn")] == ["turn-complete:0", "turn-complete:2"]
    await check_rest(world)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_stop_while_a_chunk_is_on_its_way_leaves_a_whole_message(world: World, moment: str) -> None:
    """Whichever write the stop meets, in flight or stored but not answered, starts and ends belong together."""

    class SlowLog(Tap):
        async def before(self, call: str) -> None:
            await anyio.sleep(0.3 if (moment, call) == ("before", "ChannelLog.append") else 0)

        async def after(self, call: str) -> None:
            await anyio.sleep(0.3 if (moment, call) == ("after", "ChannelLog.append") else 0)

    for number, delay in enumerate((0.1, 0.4, 0.7, 1.0)):
        world = World()
        async with world.process(SlowLog(), agents(slow)) as sessions:
            session = (await sessions.sessions.create(HOME, spec("task"))).session
            quick = world.sessions()
            await quick.channels.append_text(session, Io.IN, said("go"))
            await anyio.sleep(delay)
            await quick.channels.append_text(session, Io.IN, STOP)
            await until_rest(world)
        types = written(await world.records(Io.OUT))
        pairs = (("start", "finish"), ("start-step", "finish-step"), ("text-start", "text-end"))
        assert all(types.count(a) == types.count(b) for a, b in pairs), (number, types)
        assert types[-1] == "turn-complete:1"


async def test_a_task_sees_that_it_was_stopped(world: World) -> None:
    seen: list[bool] = []

    async def watching(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                try:
                    await anyio.sleep(10)
                finally:
                    seen.append(turn.is_stopped)

    await talk(world, watching, said("one"), STOP)
    assert seen == [True]


async def test_a_stop_is_told_with_the_record_that_completed_its_turn(world: World) -> None:
    records = await talk(world, slow, said("go"), STOP, said("go on"), pause=0.55)
    stopped = next(record for record in records if record.control == TURN_COMPLETE)
    run_id = world.runs()[0].id
    assert world.observer.of(TurnStopped) == [
        TurnStopped(session_id=world.session().id, run_id=run_id, seq=stopped.seq)
    ]


@pytest.mark.parametrize("is_grouped", [False, True])
async def test_a_stop_is_a_stop_although_the_task_makes_another_error_of_the_cancellation(
    world: World, is_grouped: bool
) -> None:
    class LostConnectionError(Exception):
        pass

    async def sleepy() -> None:
        try:
            await anyio.sleep(100)
        except BaseException as error:
            raise LostConnectionError from error

    async def wraps(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text(turn.text_input)
                if is_grouped:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(sleepy)
                        tasks.start_soon(sleepy)
                await sleepy()

    records = await talk(world, wraps, said("one"), STOP, said("two"), STOP)
    assert written(records) == [*PLAIN, "turn-complete:1", *PLAIN, "turn-complete:3"]
    assert world.observer.of(TurnFailed) == []


@pytest.mark.parametrize("is_grouped", [False, True])
async def test_a_failure_from_before_the_stop_stays_a_failure(world: World, is_grouped: bool) -> None:
    async def slow_to_end() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)

    async def lasting() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await slow_to_end()

    async def fails(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                if is_grouped:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(lasting)
                        await anyio.sleep(0.1)
                        raise LookupError
                try:
                    raise LookupError
                finally:
                    await slow_to_end()

    records = await talk(world, fails, said("one"), STOP, pause=0.5)
    assert written(records) == ["error", "turn-complete:1"]
    assert [event.error for event in world.observer.of(TurnFailed)] == ["LookupError"]
    assert world.observer.of(TurnStopped) == []


# --- Much that waits ------------------------------------------------------------------------------


async def test_a_stop_is_heard_at_once_however_much_waits_before_it(world: World) -> None:
    async def brief(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text(turn.text_input[:10])
                if turn.seq == 0:
                    await anyio.sleep(1000)

    waiting = [f"{number} {'x' * 1000}" for number in range(PENDING_RECORDS + 50)]
    async with world.process(agents=agents(brief)) as sessions:
        await sessions.sessions.create(HOME, spec("task"))
        await append(sessions, said("first"))
        records = [data_record(said(text), PartId(text.split()[0])) for text in waiting]
        await sessions.channels.append(world.session(), Io.IN, records[:900])
        await sessions.channels.append(world.session(), Io.IN, records[900:])
        await append(sessions, STOP)
        await append(sessions, said("last"))
        began = anyio.current_time()
        await until_rest(world, 300)
        assert anyio.current_time() - began < 300
    types = written(await world.records(Io.OUT))
    completed = [name for name in types if name.startswith("turn")]
    last = len(waiting) + 2
    assert completed == [f"turn-complete:{seq}" for seq in (*range(len(waiting) + 1), last)], "each has its own turn"
    texts = [chunk["delta"] for chunk in await outputs_of(world) if chunk["type"] == "text-delta"]
    assert texts == ["first", *(text[:10] for text in waiting), "last"]
    assert len(world.observer.of(TurnStopped)) == 1
    assert len(world.runs()) == 1


async def outputs_of(world: World) -> list[Any]:
    return [record.data for record in await world.records(Io.OUT) if record.kind is RecordKind.DATA]


async def test_a_stop_is_heard_behind_messages_that_are_too_large_to_hold(world: World) -> None:
    large = "x" * 500_000

    async with world.process(agents=agents(slow)) as sessions:
        await sessions.sessions.create(HOME, spec("task"))
        await append(sessions, said("go"))
        for _ in range(8):
            await append(sessions, said(large))
        await append(sessions, STOP)
        await until_rest(world, 60)
    types = written(await world.records(Io.OUT))
    assert [name for name in types if name.startswith("turn")] == [f"turn-complete:{seq}" for seq in range(9)]
    assert types.index("turn-complete:0") < 10
    assert len(world.runs()) == 1


# --- Several at once ------------------------------------------------------------------------------


async def test_tasks_of_a_turn_may_write_at_the_same_time() -> None:
    class SlowLog(Tap):
        async def before(self, call: str) -> None:
            await anyio.sleep(0.1 if call == "ChannelLog.append" else 0)

        async def after(self, call: str) -> None:
            await anyio.sleep(0.1 if call == "ChannelLog.append" else 0)

    async def parallel(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn, anyio.create_task_group() as tasks:
                for name in "abc":
                    tasks.start_soon(turn.data, name, 1)
                tasks.start_soon(turn.text, "text")

    world = World()
    async with world.process(SlowLog(), agents(parallel)):
        quick = world.sessions()
        await quick.sessions.create(HOME, spec("task"))
        await append(quick, said("go"))
        await until_rest(world)
    types = written(await world.records(Io.OUT))
    assert types[:2] == ["start", "start-step"]
    assert types[-3:] == ["finish-step", "finish", "turn-complete:0"]
    assert sorted(types[2:-3]) == ["data-a", "data-b", "data-c", "text-delta", "text-end", "text-start"]


async def test_a_stop_is_prompt_although_many_wait_to_write() -> None:
    class SlowLog(Tap):
        async def before(self, call: str) -> None:
            await anyio.sleep(1 if call == "ChannelLog.append" else 0)

    ended: list[float] = []

    async def parallel(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn, anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(turn.data, "x", number)
            ended.append(anyio.current_time())

    world = World()
    async with world.process(SlowLog(), agents(parallel)):
        quick = world.sessions()
        await quick.sessions.create(HOME, spec("task"))
        await append(quick, said("go"))
        await anyio.sleep(2.5)
        stopped_at = anyio.current_time()
        await append(quick, STOP)
        await until_rest(world)
    assert ended[0] - stopped_at <= 2, "the write under way, and the turn-complete"
    assert [t for t in written(await world.records(Io.OUT)) if t.startswith("turn")] == ["turn-complete:1"]


# --- Failing --------------------------------------------------------------------------------------


async def test_an_error_in_a_turn_is_told_and_the_run_goes_on(world: World) -> None:
    async def fails(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                if turn.text_input == "bad":
                    await turn.text("half")
                    raise LookupError("secret detail")
                if turn.text_input == "worse":
                    raise ValueError
                await turn.text("fine")

    records = await talk(world, fails, said("bad"), said("worse"), said("good"))
    half = [*PLAIN[:5], "error", *PLAIN[5:]]
    assert written(records) == [*half, "turn-complete:0", "error", "turn-complete:1", *PLAIN, "turn-complete:2"]
    assert "secret" not in str(data_of(records[5]))
    assert [event.error for event in world.observer.of(TurnFailed)] == ["LookupError", "ValueError"]
    assert len(world.runs()) == 1


async def test_an_error_in_the_middle_of_a_text_closes_the_text(world: World) -> None:
    async def fails(run: chat.Run) -> None:
        async def words() -> AsyncIterator[str]:
            yield "half"
            raise ValueError

        async for turn in run.turns():
            async with turn:
                await turn.text(words())

    assert written(await talk(world, fails, said("x"))) == [
        *PLAIN[:5], "error", *PLAIN[5:], "turn-complete:0"
    ]  # fmt: skip


async def test_a_first_chunk_that_is_too_large_leaves_no_half_message(world: World) -> None:
    async def too_much(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text("x" * 2_000_000)

    assert written(await talk(world, too_much, said("x"))) == ["error", "turn-complete:0"]


async def test_a_stop_closes_the_generator_that_is_being_written(world: World) -> None:
    closed: list[bool] = []

    async def streams(run: chat.Run) -> None:
        async def words() -> AsyncIterator[str]:
            try:
                while True:
                    yield "x"
                    await anyio.sleep(0.1)
            finally:
                closed.append(True)

        async for turn in run.turns():
            async with turn:
                await turn.text(words())

    await talk(world, streams, said("go"), STOP)
    assert closed == [True]


async def test_a_stop_reaches_a_task_that_does_nothing_but_write(world: World) -> None:
    async def chatters(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                for number in range(100_000):
                    await turn.data("n", number)

    async with world.process(agents=agents(chatters)) as sessions:
        await sessions.sessions.create(HOME, spec("task"))
        await append(sessions, said("go"))
        await append(sessions, STOP)
        await until_rest(world)
    assert written(await world.records(Io.OUT))[-1] == "turn-complete:1"
    assert len(await world.records(Io.OUT)) < 1000


async def test_a_run_that_was_replaced_in_a_turn_writes_nothing_more(world: World) -> None:
    async def replaced(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                if turn.text_input == "move" and run.record.version == 1:
                    await turn.text("before")
                    await run.end_and_continue("upgrade")
                    await anyio.sleep(1)
                await turn.text("after")

    records = await talk(world, replaced, said("move"))
    again = ["finish-step", "data-restart", *PLAIN[1:]]
    assert written(records) == [*PLAIN[:5], "upgrade-required:None", *again, "turn-complete:0"]
    assert [run.status for run in world.runs()] == [RunStatus.CANCELED, RunStatus.COMPLETED_SUCCESSFULLY]


# --- Close ----------------------------------------------------------------------------------------


async def test_a_clients_close_ends_the_run_but_not_the_session(world: World) -> None:
    async with world.process(agents=agents(plain)) as sessions:
        await sessions.sessions.create(HOME, spec("task", idle=1000))
        await append(sessions, said("one"))
        await append(sessions, said("", trigger="close"))
        await anyio.sleep(2)
        assert [run.status for run in world.runs()] == [RunStatus.COMPLETED_SUCCESSFULLY]
        await append(sessions, said("two"))
        await anyio.sleep(2)
        assert [run.version for run in world.runs()] == [1, 2]
    turns = [name for name in written(await world.records(Io.OUT)) if name.startswith("turn")]
    assert turns == ["turn-complete:0", "turn-complete:2"]


async def test_a_close_from_outside_ends_an_idle_run_at_once(world: World) -> None:
    async with world.process(agents=agents(plain)) as sessions:
        await sessions.sessions.create(HOME, spec("task", idle=1000))
        await append(sessions, said("one"))
        await anyio.sleep(1)
        await sessions.sessions.close(HOME.id, NAME, "done")
        await anyio.sleep(1)
        await check_rest(world)
        assert [event.status for event in world.observer.of(RunEnded)] == [RunStatus.COMPLETED_SUCCESSFULLY]


async def test_a_close_from_outside_ends_a_busy_run_with_its_next_write(world: World) -> None:
    async with world.process(agents=agents(slow)) as sessions:
        await sessions.sessions.create(HOME, spec("task", idle=1000))
        await append(sessions, said("one"))
        await anyio.sleep(0.5)
        await sessions.sessions.close(HOME.id, NAME, "done")
        await anyio.sleep(1)
        await check_rest(world)
    assert (await world.records(Io.OUT))[-1].header(SESSION_CLOSED) == "true"
    assert len(world.runs()) == 1


async def test_a_run_may_close_its_session(world: World) -> None:
    async def closes(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text("goodbye")
            await run.close("said goodbye")

    records = await talk(world, closes, said("bye"))
    assert world.session().closed_reason == "said goodbye"
    assert records[-1].header("session-closed-reason") == "said goodbye"
    with pytest.raises(SessionClosedError):
        await say(world.sessions(), "hello?")


# --- Continuing, draining --------------------------------------------------------------------------


async def test_the_next_message_after_an_idle_time_starts_a_continuation(world: World) -> None:
    payloads: list[Any] = []

    async def notes(run: chat.Run) -> None:
        payloads.append((run.is_continuation, run.payload.get("previousRunId"), run.cursor))
        async for turn in run.turns():
            async with turn:
                await turn.text("x")

    await talk(world, notes, said("one"), said("two"), pause=10)
    first = world.runs()[0]
    assert payloads == [(False, None, -1), (True, first.id, 0)]


async def test_draining_ends_idle_runs_and_lets_busy_turns_finish(world: World) -> None:
    async with world.process(agents=agents(slow)) as sessions:
        await sessions.sessions.create(HOME, spec("task", idle=1000))
        await append(sessions, said("one"))
        await anyio.sleep(0.5)
        await append(sessions, said("two"))
    assert [n for n in written(await world.records(Io.OUT)) if n.startswith("turn")] == ["turn-complete:0"]
    assert [run.status for run in world.runs()] == [RunStatus.CANCELED]
    async with world.process(agents=agents(slow)):
        await until_rest(world)
    turns = [n for n in written(await world.records(Io.OUT)) if n.startswith("turn")]
    assert turns == ["turn-complete:0", "turn-complete:1"]


async def test_two_chats_do_not_hear_each_other(world: World) -> None:
    async with world.process(agents=agents(plain)) as sessions:
        for name in ("a", "b"):
            await sessions.sessions.create(HOME, spec("task", name=name))
        for name in ("a", "b", "a"):
            await say(sessions, f"to {name}", part=f"{name}{anyio.current_time()}", name=name)
            await anyio.sleep(1)
        await until_rest(world)
    for name, count in (("a", 2), ("b", 1)):
        deltas = [data_of(r)["delta"] for r in await world.records(Io.OUT, name) if data_of_type(r) == "text-delta"]
        assert deltas == [f"submit-message to {name}"] * count


# --- The named profile ----------------------------------------------------------------------------


async def test_the_memory_profile_echoes() -> None:
    async with open_sessions("memory", agents=agents(plain)) as sessions:
        session = (await sessions.sessions.create(HOME, spec("task", idle=1000))).session
        await say(sessions, "hello")
        async with sessions.channels.subscribe(session.channel(Io.OUT)) as reading:
            got: list[Record] = []
            with anyio.fail_after(5):
                while not got or got[-1].control is None:
                    batch = await reading.next()
                    assert batch is not None
                    got += batch.records
        assert written(got) == [*PLAIN, "turn-complete:0"]
