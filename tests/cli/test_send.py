"""``sessions send`` against a real server, as a person or a script uses it."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from harness.command import PATIENCE, PROGRAM, environment
from harness.server import ServerProcess
from harness.shell import Shell, close, wait_until

pytestmark = pytest.mark.slow
MORE_THAN_A_PIPE_HOLDS = 1_000_000


def test_a_first_message_makes_the_session_and_prints_the_answer_alone(shell: Shell) -> None:
    done = shell("send", "first", "hello", "--create", "echo", "--wait")
    assert (done.returncode, done.stdout, done.stderr) == (0, "you said: hello\n", "")
    again = shell("send", "first", "more", "--create", "echo", "--wait")
    assert again.stdout == "you said: more\n"


def test_without_waiting_it_says_where_the_message_is(shell: Shell) -> None:
    done = shell("send", "plain", "one", "--create", "echo")
    assert (done.returncode, done.stdout) == (0, "plain: stored as seq 0 of in\n")
    sent = shell.json("send", "plain", "two", "--part-id", "mine")
    assert sent == {"seq": 1, "partId": "mine"}
    assert shell.json("send", "plain", "two", "--part-id", "mine") == sent, "the same part id is the same record"
    assert [record["seq"] for record in shell.records("plain", "--channel", "in")] == [0, 1]


def test_an_answer_as_json_is_one_document(shell: Shell) -> None:
    answer = shell.json("send", "document", "hi", "--create", "echo", "--wait", "--part-id", "p")
    assert (answer["seq"], answer["partId"], answer["text"], answer["error"]) == (0, "p", "you said: hi", None)
    assert [chunk["type"] for chunk in answer["chunks"]][:3] == ["start", "start-step", "text-start"]
    assert shell.json("send", "document", "next", "--wait")["text"] == "you said: next"
    assert shell.json("send", "document", "hi", "--wait", "--part-id", "p") == answer, "a repetition finds its answer"


def test_an_answer_is_that_to_the_own_message_also_while_another_one_is_written(shell: Shell) -> None:
    shell("send", "busy", "slow one", "--create", "echo")
    assert shell("send", "busy", "mine", "--wait").stdout == "you said: mine\n"


def test_a_text_is_read_from_standard_input(shell: Shell) -> None:
    done = shell("send", "piped", "-", "--create", "echo", "--wait", stdin="two\nlines ä\n")
    assert done.stdout == "you said: two\nlines ä\n"


def test_ctrl_c_ends_the_reading_of_a_text(shell: Shell) -> None:
    command, env = [*PROGRAM, "send", "unsaid", "-"], environment(**shell.given)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as it:
        assert it.stdin is not None
        assert it.stderr is not None
        it.stdin.write(b"x" * MORE_THAN_A_PIPE_HOLDS)  # done when most of it has been read
        it.send_signal(signal.SIGINT)
        assert (it.wait(PATIENCE), it.stderr.read()) == (130, b"")


def test_a_standard_input_that_is_closed_is_one_line(shell: Shell) -> None:
    env = environment(**shell.given)
    command = ["sh", "-c", 'exec "$@" <&-', "sh", *PROGRAM, "send", "unsaid", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=env)
    assert (done.returncode, done.stderr) == (1, "sessions: standard input is closed\n")


def test_the_text_may_stand_anywhere(shell: Shell) -> None:
    for arguments in (
        ["--create", "echo", "anywhere", "--wait", "hi"],
        ["anywhere", "--wait", "hi", "--json"],
        ["--wait", "anywhere", "hi"],
        ["anywhere", "--wait", "--", "hi"],
    ):
        assert "you said: hi" in shell("send", *arguments).stdout, arguments
    assert shell("send", "anywhere", "--wait", "--", "-hi").stdout == "you said: -hi\n"
    assert shell("send", "anywhere", "--wait", "-", stdin="in").stdout == "you said: in\n"
    for arguments in (["anywhere", "hi", "--wait", "more"], ["anywhere", "--wait", "hi", "more"], ["x", "--nonsense"]):
        done = shell("send", *arguments)
        assert (done.returncode, "unrecognized arguments" in done.stderr) == (2, True)


def test_signals_and_raw_texts_are_what_the_official_clients_send(shell: Shell) -> None:
    shell("send", "kinds", "x", "--create", "nobody-runs-this")
    for arguments in (
        ["--stop"],
        ["--regenerate"],
        ["--action", '{"type": "undo"}'],
        ["--close-message"],
        ["--raw", "as it is\n"],
        ["--raw", "-"],
    ):
        assert shell("send", "kinds", *arguments, stdin="from stdin\n").returncode == 0
    said, *rest = [record["data"] for record in shell.records("kinds", "--channel", "in")]
    assert json.loads(said)["payload"]["message"]["parts"] == [{"type": "text", "text": "x"}]
    assert rest[4:] == ["as it is\n", "from stdin\n"]
    assert [json.loads(text) for text in rest[:4]] == [
        {"kind": "stop"},
        {"kind": "message", "payload": {"trigger": "regenerate-message"}},
        {"kind": "message", "payload": {"trigger": "action", "action": {"type": "undo"}}},
        {"kind": "message", "payload": {"trigger": "close"}},
    ]


def test_a_session_that_is_closed_while_somebody_waits_is_a_failure(shell: Shell, server: ServerProcess) -> None:
    shell("send", "closing", "x", "--create", "nobody-runs-this")
    waiting = shell.start("send", "closing", "y", "--wait")
    wait_until(lambda: len(shell.records("closing", "--channel", "in")) == 2)
    close(server, "closing")
    out, err = waiting.communicate(timeout=PATIENCE)
    assert (waiting.returncode, out, err) == (1, "", "sessions: the session was closed before it answered\n")
    refused = shell("send", "closing", "z")
    assert refused.returncode == 1
    assert "(session_closed, request " in refused.stderr
