"""The tasks that come with the server, run with the test kit."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from datetime import timedelta

import pytest

from sessions_core.chat import Agents, stop_message, user_message
from sessions_core.domain.channel import Io
from sessions_core.testing import Kit, SessionUnderTest, run_agents
from sessions_server.bundled import agents


@pytest.fixture
def kit() -> Generator[Kit]:
    with run_agents(agents) as opened:
        yield opened


def nothing(kit: Kit) -> None:
    """Let the same run go on."""


def a_day(kit: Kit) -> None:
    """Let the run leave."""
    kit.advance(timedelta(hours=25))


def a_restart(kit: Kit) -> None:
    kit.restart()


def a_crash(kit: Kit) -> None:
    kit.kill()


MEANWHILE = pytest.mark.parametrize("meanwhile", [nothing, a_day, a_restart, a_crash])


def say(session: SessionUnderTest, text: str) -> str:
    session.send(text)
    return session.expect_turn().text


def test_the_server_has_three_tasks() -> None:
    assert isinstance(agents, Agents)
    assert agents.names == ("echo", "counter", "approval")


# --- echo -----------------------------------------------------------------------------------------


def test_echo_says_what_the_user_said_and_nothing_else(kit: Kit) -> None:
    session = kit.start("echo")
    assert say(session, "hello") == "you said: hello"
    assert say(session, "again") == "you said: again"


def test_a_slow_echo_takes_four_seconds_for_its_40_deltas(kit: Kit) -> None:
    session = kit.start("echo")
    began = kit.now
    session.send("slow one")
    turn = session.expect_turn()
    assert turn.text == "you said: slow one" + "".join(f" {number}" for number in range(1, 40))
    assert [chunk["type"] for chunk in turn.chunks].count("text-delta") == 40
    assert timedelta(seconds=3.9) <= kit.now - began < timedelta(seconds=4)


def test_a_slow_echo_goes_on_after_a_crash_where_it_was(kit: Kit) -> None:
    session = kit.start("echo")
    session.send("slow one")
    kit.advance(timedelta(seconds=2))
    kit.kill()
    assert session.expect_turn().text.endswith(" 38 39")
    kinds = [record.control or "data" for record in session.records()]
    assert kinds.count("turn-complete") == 1
    assert len(kinds) == 40 + len(
        ["start", "start-step", "text-start", "text-end", "finish-step", "finish", "complete"]
    )


# --- counter --------------------------------------------------------------------------------------


@MEANWHILE
def test_the_counter_counts_over_all_runs(kit: Kit, meanwhile: Callable[[Kit], None]) -> None:
    session = kit.start("counter")
    for number in range(1, 5):
        session.send("x")
        turn = session.expect_turn()
        assert (turn.data("count"), turn.text) == (number, f"That is message number {number}.")
        meanwhile(kit)


def test_the_counter_counts_messages_and_not_what_else_wants_an_answer(kit: Kit) -> None:
    session = kit.start("counter")
    say(session, "one")
    session.regenerate()
    assert session.expect_turn().data("count") == 1
    session.action({"type": "whatever"})
    assert session.expect_turn().data("count") == 1
    assert say(session, "two") == "That is message number 2."


@pytest.mark.parametrize("meanwhile", [nothing, a_crash])
def test_the_counter_counts_a_message_once_whatever_becomes_of_its_answer(
    kit: Kit, meanwhile: Callable[[Kit], None]
) -> None:
    session = kit.start("counter")
    assert say(session, "one") == "That is message number 1."

    row = session.row

    async def at_once() -> None:
        for record in (user_message("two"), stop_message()):
            await kit.sessions.channels.append_text(row, Io.IN, json.dumps(record))

    kit.run(at_once)
    assert session.expect_turn().text == ""
    meanwhile(kit)
    assert say(session, "three") == "That is message number 3."


# --- approval -------------------------------------------------------------------------------------


@MEANWHILE
@pytest.mark.parametrize(
    ("answer", "outcome", "state"),
    [
        ("yes", "Approved, done: deploy", "approved"),
        (" YES! ", "Approved, done: deploy", "approved"),
        ("no", "Denied, not done: deploy", "denied"),
    ],
)
def test_an_approval_waits_for_yes_or_no_as_long_as_it_takes(
    kit: Kit, meanwhile: Callable[[Kit], None], answer: str, outcome: str, state: str
) -> None:
    session = kit.start("approval")
    session.send("deploy")
    asked = session.expect_turn()
    assert asked.text == "May I go on with: deploy? Answer yes or no."
    part = asked.data("approval")
    assert (part["question"], part["options"], part["state"]) == ("May I go on with: deploy?", ["yes", "no"], "open")
    meanwhile(kit)
    session.send(answer)
    decided = session.expect_turn()
    assert decided.text == outcome
    assert (decided.data("approval")["id"], decided.data("approval")["state"]) == (part["id"], state)


def test_the_next_wish_is_a_question_of_its_own(kit: Kit) -> None:
    session = kit.start("approval")
    first = (say(session, "deploy"), say(session, "no"))
    assert first == ("May I go on with: deploy? Answer yes or no.", "Denied, not done: deploy")
    assert say(session, "retreat") == "May I go on with: retreat? Answer yes or no."
    assert say(session, "yes") == "Approved, done: retreat"


def test_of_several_answers_at_once_the_first_one_counts(kit: Kit) -> None:
    session = kit.start("approval")
    say(session, "deploy")
    for answer in ("no", "yes", "Yes."):
        session.send(answer)
    texts = [session.expect_turn().text for _ in range(3)]
    assert texts == ["Denied, not done: deploy", *["Tell me what to do, and I ask before I do it."] * 2]


@MEANWHILE
def test_anything_else_is_no_answer_and_is_asked_again(kit: Kit, meanwhile: Callable[[Kit], None]) -> None:
    session = kit.start("approval")
    say(session, "deploy")
    for text in ("maybe", "", "yes and no"):
        assert say(session, text) == "May I go on with: deploy? Answer yes or no."
        meanwhile(kit)
    assert say(session, "y") == "Approved, done: deploy"


@pytest.mark.parametrize(
    ("kind", "outcome"), [("approve", "Approved, done: deploy"), ("deny", "Denied, not done: deploy")]
)
def test_a_button_answers_with_an_action(kit: Kit, kind: str, outcome: str) -> None:
    session = kit.start("approval")
    session.send("deploy")
    part = session.expect_turn().data("approval")
    session.action({"type": kind, "id": part["id"]})
    assert session.expect_turn().text == outcome


def test_a_button_of_an_earlier_question_decides_nothing(kit: Kit) -> None:
    session = kit.start("approval")
    session.send("first")
    old = session.expect_turn().data("approval")["id"]
    say(session, "no")
    say(session, "second")
    session.action({"type": "approve", "id": old})
    assert session.expect_turn().text == "May I go on with: second? Answer yes or no."


def test_asking_for_the_same_answer_again_approves_nothing(kit: Kit) -> None:
    session = kit.start("approval")
    say(session, "deploy")
    session.regenerate()
    assert session.expect_turn().data("approval")["state"] == "open"


def test_without_a_wish_there_is_nothing_to_approve(kit: Kit) -> None:
    session = kit.start("approval")
    assert say(session, " ") == "Tell me what to do, and I ask before I do it."
    session.action({"type": "approve"})
    assert session.expect_turn().text == "Tell me what to do, and I ask before I do it."
