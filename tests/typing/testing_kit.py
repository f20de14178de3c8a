"""The types of the test kit. Checked, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, assert_type

from sessions_core import Agents, Record, Session, chat
from sessions_core.domain.run import RunRecord
from sessions_core.testing import CompletedTurn, Kit, SessionUnderTest, run_agents


async def double(number: int) -> str:
    return str(2 * number)


with run_agents(Agents(), io_patience=timedelta(milliseconds=5)) as kit:
    assert_type(kit, Kit)
    assert_type(kit.now, datetime)
    assert_type(kit.failures, list[BaseException])
    assert_type(kit.run(double, 1), str)
    session = kit.start("echo", payload={"a": 1}, idle_timeout=timedelta(minutes=1), maxAttempts=2)
    assert_type(session, SessionUnderTest)
    assert_type(session.send("hello"), int)
    assert_type(session.append({"any": "value"}), int)
    assert_type(session.row, Session)
    assert_type(session.runs(), list[RunRecord])
    assert_type(session.records(), list[Record])
    assert_type(session.expect("text-delta"), Any)
    turn = session.expect_turn(timedelta(seconds=5))
    assert_type(turn, CompletedTurn)
    assert_type(turn.text, str)
    assert_type(turn.chunks, tuple[chat.Chunk, ...])
    assert_type(turn.stopped, bool)
    assert_type(turn.error, str | None)

    kit.advance(5)  # type: ignore[arg-type]
    kit.run(double, "one")  # type: ignore[arg-type]
    session.expect_turn(True)  # type: ignore[arg-type]
    session.send(7)  # type: ignore[arg-type]
