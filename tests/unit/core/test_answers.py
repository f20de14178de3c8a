"""Reading one answer: where it begins, where it ends, and what does not belong to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
import pytest

from sessions_core.chat import Agents, Answer, read_answer
from sessions_core.chat.answers import SCAN_RECORDS
from sessions_core.domain.channel import TURN_COMPLETE, Io, NewRecord, control_record, data_record
from sessions_core.domain.ids import PartId
from sessions_core.domain.session import Session
from sessions_core.errors import SessionClosedError
from sessions_core.facade import Sessions
from unit.core.chats import HOME, NAME, said, say, spec
from unit.core.world import World

START = {"type": "start"}
FINISH = {"type": "finish"}


@pytest.fixture
async def quiet(world: World) -> AsyncIterator[Sessions]:
    """Sessions whose agents are the test itself: nobody else writes to ``out``."""
    async with world.process(agents=Agents()) as sessions:
        yield sessions


@pytest.fixture
async def session(quiet: Sessions) -> Session:
    return (await quiet.sessions.create(HOME, spec())).session


def delta(text: str) -> dict[str, Any]:
    return {"type": "text-delta", "id": "text-1", "delta": text}


def complete(*, seq: int | None) -> NewRecord:
    return control_record(TURN_COMPLETE, {} if seq is None else {"session-in-event-id": str(seq)})


async def write(sessions: Sessions, session: Session, *items: Mapping[str, Any] | NewRecord) -> None:
    records = [item if isinstance(item, NewRecord) else data_record(item, PartId("p"), dedupe=False) for item in items]
    await sessions.channels.append(session, Io.OUT, records)


async def read(sessions: Sessions, session: Session, seq: int) -> Answer:
    with anyio.fail_after(60):
        return await read_answer(sessions, session, seq)


async def test_each_message_has_the_answer_that_names_it_whenever_it_is_asked_for(world: World) -> None:
    async with world.process() as sessions:
        session = (await sessions.sessions.create(HOME, spec())).session
        seqs = [await say(sessions, text) for text in ("one", "two", "three")]
        for seq, text in [*zip(seqs, ("one", "two", "three"), strict=True)][::-1]:
            answer = await read(sessions, session, seq)
            assert (answer.text, answer.error) == (f"you said: {text}", None)
            assert answer.chunks[0]["type"] == "start"
            assert answer.chunks[-1]["type"] == "finish"


async def test_an_answer_that_does_not_exist_yet_is_waited_for(world: World) -> None:
    async with world.process() as sessions:
        session = (await sessions.sessions.create(HOME, spec())).session
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await read(sessions, session, 0))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.sleep(1)
            assert answers == []
            await sessions.channels.append_text(session, Io.IN, said("late"))
        assert answers[0].text == "you said: late"


async def test_what_a_dead_run_had_written_is_no_part_of_the_answer(quiet: Sessions, session: Session) -> None:
    await write(quiet, session, START, delta("half an"), START, delta("a whole one"), FINISH, complete(seq=0))
    assert (await read(quiet, session, 0)).text == "a whole one"


async def test_what_an_answer_takes_back_is_no_part_of_it(quiet: Sessions, session: Session) -> None:
    restart = {"type": "data-restart", "data": {}}
    await write(quiet, session, START, delta("half an"), restart, delta("another one"), FINISH, complete(seq=0))
    assert (await read(quiet, session, 0)).text == "another one"


async def test_an_answer_that_takes_something_back_has_its_beginning_and_the_ids_that_the_agent_gave(
    quiet: Sessions, session: Session
) -> None:
    def part(value: int, part_id: str) -> dict[str, Any]:
        return {"type": "data-x", "id": part_id, "data": value}

    begin, restart = {"type": "start", "messageId": "m"}, {"type": "data-restart", "data": {}}
    await write(quiet, session, begin, part(1, "a"), restart, part(2, "a-again"), restart)
    await write(quiet, session, part(3, "a-again-again"), part(4, "b-again"), FINISH, complete(seq=0))
    answer = await read(quiet, session, 0)
    assert answer.chunks == (begin, part(3, "a"), part(4, "b-again"), FINISH)


async def test_the_answer_before_is_no_part_of_it_even_if_the_agent_writes_nothing(
    quiet: Sessions, session: Session
) -> None:
    await write(quiet, session, START, delta("first"), FINISH, complete(seq=0), complete(seq=1))
    answer = await read(quiet, session, 1)
    assert (answer.chunks, answer.seq) == ((), 4)


async def test_a_turn_that_covers_later_records_answers_its_message_and_them(quiet: Sessions, session: Session) -> None:
    await write(quiet, session, START, delta("stopped"), FINISH, complete(seq=2))
    assert [(await read(quiet, session, seq)).text for seq in (0, 1, 2)] == ["stopped"] * 3


async def test_a_turn_complete_that_names_nothing_ends_no_answer(quiet: Sessions, session: Session) -> None:
    await write(quiet, session, complete(seq=None), START, delta("an answer"), FINISH, complete(seq=0))
    await write(quiet, session, complete(seq=None))
    assert (await read(quiet, session, 0)).text == "an answer"


async def test_a_long_answer_after_long_answers_is_found(quiet: Sessions, session: Session) -> None:
    for seq, letter in enumerate("abc"):
        deltas = [delta(letter)] * (SCAN_RECORDS + 1)
        await write(quiet, session, START, *deltas, FINISH, complete(seq=seq))
    assert (await read(quiet, session, 1)).text == "b" * (SCAN_RECORDS + 1)


async def test_a_failure_is_told(quiet: Sessions, session: Session) -> None:
    await write(quiet, session, {"type": "error", "errorText": "no luck"}, complete(seq=0))
    answer = await read(quiet, session, 0)
    assert (answer.text, answer.error) == ("", "no luck")


async def test_what_is_no_chunk_is_passed_over(quiet: Sessions, session: Session) -> None:
    await write(quiet, session, NewRecord(b"not an envelope"), data_record("no object", PartId("p"), dedupe=False))
    await write(quiet, session, START, delta("an answer"), FINISH, complete(seq=0))
    assert (await read(quiet, session, 0)).chunks == (START, delta("an answer"), FINISH)


async def test_a_session_that_is_closed_before_it_answered_says_so(quiet: Sessions, session: Session) -> None:
    await write(quiet, session, START, delta("an answer"), FINISH, complete(seq=0))
    await quiet.sessions.close(HOME.id, NAME, "enough")
    assert (await read(quiet, session, 0)).text == "an answer"
    with pytest.raises(SessionClosedError) as closed:
        await read(quiet, session, 1)
    assert closed.value.closed_reason == "enough"
