"""``sessions list``, ``show``, ``send`` and ``tail`` against a real server, as a person or a script uses them."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from harness.command import PATIENCE, PROGRAM, AtTerminal, environment, sessions
from harness.server import KEY, ServerProcess
from sessions_server.cli import main

pytestmark = pytest.mark.slow
MORE_THAN_A_PIPE_HOLDS = 1_000_000
EVIL = "\x1b]0;owned\x07\x1b[31m\x9b2J\r"
Done = subprocess.CompletedProcess[str]


@attrs.frozen
class Shell:
    """Somebody who has said once where the server is and which key to show."""

    given: dict[str, str]

    def __call__(self, *arguments: str | Path, stdin: str | None = None, **more: str) -> Done:
        return sessions(*arguments, stdin=stdin, **{**self.given, **more})

    def json(self, *arguments: str) -> Any:
        """Run a command that has to succeed, and parse the document that it prints."""
        done = self(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    def records(self, *arguments: str) -> list[Any]:
        """Return what ``tail --json`` prints without following."""
        done = self("tail", *arguments, "--no-follow", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Start a command and leave it running."""
        command, env = [*PROGRAM, *arguments], environment(**{**self.given, **more})
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def shell_for(server: ServerProcess) -> Shell:
    return Shell({"SESSIONS_URL": server.address, "SESSIONS_KEY": KEY})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests of this module that do it no harm; each has sessions of its own."""
    pings = {"SESSIONS_PING_INTERVAL": "0.3"}
    with ServerProcess(tmp_path_factory.mktemp("data"), environment=pings) as server:
        yield server


@pytest.fixture
def shell(server: ServerProcess) -> Shell:
    return shell_for(server)


# --- sessions send ---


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
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as it:
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


# --- sessions tail ---


def test_a_transcript_is_text_and_lines_about_control_records(shell: Shell) -> None:
    shell("send", "talk", "hello", "--create", "echo", "--wait")
    shell("send", "talk", "again", "--wait")
    out = shell("tail", "talk", "--no-follow").stdout
    assert out.splitlines()[0::2] == ["you said: hello", "you said: again"]
    assert out.splitlines()[1].startswith("-- turn complete (seq ")
    assert shell("tail", "talk", "--channel", "in", "--no-follow").stdout == "> hello\n> again\n"


def test_it_begins_where_it_is_told(shell: Shell) -> None:
    for text in "abc":
        shell("send", "begin", text, "--raw", "--create", "nobody-runs-this")
    for start, expected in (("start", [0, 1, 2]), ("0", [0, 1, 2]), ("2", [2]), ("3", []), ("99", []), ("end", [])):
        assert [r["seq"] for r in shell.records("begin", "--channel", "in", "--from", start)] == expected, start
    assert shell("tail", "begin", "--channel", "in", "--from", "1", "--raw", "--no-follow").stdout == "b\nc\n"


def test_it_goes_on_until_a_turn_is_complete(shell: Shell) -> None:
    shell("send", "until", "one", "--create", "echo", "--wait")
    first = shell("tail", "until", "--until-turn-complete", "--json")
    records = [json.loads(line) for line in first.stdout.splitlines()]
    assert [record["control"] for record in records if record["control"]] == ["turn-complete"]
    following = shell.start("tail", "until", "--from", str(records[-1]["seq"] + 1), "--until-turn-complete")
    shell("send", "until", "two", "--wait")
    out, _ = following.communicate(timeout=PATIENCE)
    assert out.startswith("you said: two\n-- turn complete")


def test_a_session_that_is_not_there_yet_is_waited_for_by_its_external_id(shell: Shell) -> None:
    following = shell.start("tail", "later", "--until-turn-complete")
    shell("send", "later", "hi", "--create", "echo")
    out, _ = following.communicate(timeout=PATIENCE)
    assert out.startswith("you said: hi\n")


def test_ctrl_c_ends_it_without_a_traceback(shell: Shell) -> None:
    shell("send", "interrupt", "hi", "--create", "echo", "--wait")
    following = shell.start("tail", "interrupt")
    assert following.stdout is not None
    assert following.stdout.readline() == "you said: hi\n"
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=PATIENCE)
    assert (following.returncode, err) == (130, "")


def test_a_reader_that_has_had_enough_ends_it_quietly_also_while_nothing_comes(shell: Shell) -> None:
    shell("send", "pipe", "hi", "--create", "echo", "--wait")
    following = shell.start("tail", "pipe", "--from", "end")
    assert following.stdout is not None
    following.stdout.close()
    assert following.wait(PATIENCE) == 0
    assert following.stderr is not None
    with following.stderr:
        assert following.stderr.read() == ""
    script = f"set -o pipefail; {' '.join(PROGRAM)} tail pipe --json | head -n 1"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=50, check=False, env=environment(**shell.given)
    )
    assert (done.returncode, done.stderr, json.loads(done.stdout)["seq"]) == (0, "", 0)


@pytest.mark.kill
def test_a_tail_outlives_the_kill_of_its_server_and_loses_and_repeats_nothing(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        shell = shell_for(server)
        shell("send", "kill", "slow", "--create", "echo")
        following = shell.start("tail", "kill", "--json")
        assert following.stdout is not None
        lines = [following.stdout.readline() for _ in range(10)]
        server.kill()
        server.start()
        answer = shell("send", "kill", "after", "--wait")
        assert answer.stdout == "you said: after\n"
        whole = shell.records("kill")
        while json.loads(lines[-1])["seq"] < whole[-1]["seq"]:
            lines.append(following.stdout.readline())
        following.send_signal(signal.SIGINT)
        _, err = following.communicate(timeout=PATIENCE)
    assert [json.loads(line) for line in lines] == whole
    assert (following.returncode, err) == (130, "")


@pytest.mark.kill
def test_whoever_waits_for_an_answer_gets_it_although_the_server_is_killed(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        shell = shell_for(server)
        shell("send", "kill", "x", "--create", "echo", "--wait")
        waiting = shell.start("send", "kill", "slow", "--wait")
        wait_until(lambda: "slow" in shell("tail", "kill", "--no-follow").stdout)
        server.kill()
        server.start()
        out, err = waiting.communicate(timeout=PATIENCE)
    assert (waiting.returncode, err) == (0, "")
    assert out == "you said: slow" + "".join(f" {number}" for number in range(1, 40)) + "\n"


# --- sessions list and show ---


def test_the_list_is_a_table_or_a_document(shell: Shell) -> None:
    for number in range(3):
        shell("send", f"list-{number}", "x", "--create", "list-task")
    rows = shell.json("list", "--task", "list-task")
    assert [row["externalId"] for row in rows] == ["list-2", "list-1", "list-0"]
    assert {row["status"] for row in rows} == {"ACTIVE"}
    done = shell("list", "--task", "list-task")
    head, *lines = done.stdout.splitlines()
    assert head.split("  ")[0] == "ID"
    assert [line.split()[:3] for line in lines] == [[r["id"], r["externalId"], "ACTIVE"] for r in rows]
    assert done.stderr == ""


def test_the_list_is_filtered_and_cut(shell: Shell, server: ServerProcess) -> None:
    for number in range(4):
        create(server, f"cut-{number}", task="cut-task", tags=["even" if number % 2 == 0 else "odd", "all"])
    close(server, "cut-0")

    def listed(*arguments: str) -> list[str]:
        return [row["externalId"][4:] for row in shell.json("list", "--task", "cut-task", *arguments)]

    assert listed() == ["3", "2", "1", "0"]
    assert listed("--limit", "3") == ["3", "2", "1"]
    assert listed("--tag", "odd") == ["3", "1"]
    assert listed("--status", "closed") == ["0"]
    assert listed("--status", "active", "--status", "CLOSED", "--tag", "even") == ["2", "0"]
    assert listed("--all") == ["3", "2", "1", "0"]
    assert shell.json("list", "--task", "nothing") == []
    assert shell("list", "--task", "nothing").stdout == ""


def test_the_list_follows_its_pages(shell: Shell, server: ServerProcess) -> None:
    for number in range(103):
        create(server, f"page-{number}", task="page-task")
    expected = [f"page-{number}" for number in reversed(range(103))]
    assert [row["externalId"] for row in shell.json("list", "--task", "page-task", "--all")] == expected
    assert len(shell.json("list", "--task", "page-task", "--limit", "102")) == 102
    assert len(shell.json("list", "--task", "page-task")) == 20


def test_a_session_is_shown_with_its_runs_waits_and_channels(shell: Shell, server: ServerProcess) -> None:
    shell("send", "whole", "hi", "--create", "echo", "--wait")
    run = shell.json("show", "whole")["runs"][0]["id"]
    wait = {"session": "whole", "io": "in", "timeout": "1h"}
    post(server, f"/api/v1/runs/{run}/session-streams/wait", wait)
    found = shell.json("show", "whole")
    assert (found["session"]["externalId"], found["session"]["status"]) == ("whole", "ACTIVE")
    assert [(line["status"], line["reason"], line["attempt"]) for line in found["runs"]] == [
        ("EXECUTING", "initial", 1)
    ]
    assert [(waitpoint["runId"], waitpoint["io"]) for waitpoint in found["waitpoints"]] == [(run, "in")]
    assert [(channel["io"], channel["nextSeqNum"]) for channel in found["channels"]] == [("in", 1), ("out", 8)]
    text = shell("show", found["session"]["id"]).stdout
    for expected in (
        "external id  whole\n",
        f"{run}  EXECUTING  initial  attempt 1",
        "in after seq 0",
        "first seq 0, next 8",
        "open: run version 1 reads it",
        "open to epoch 1",
    ):
        assert expected in text
    close(server, "whole")
    closed = shell("show", "whole").stdout
    assert "status       CLOSED since 2" in closed
    assert closed.count("sealed: takes no records any more") == 2


# --- what they have in common ---


def failure(code: int, done: Done) -> str:
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("sessions: ")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize("command", [["list"], ["show", "x"], ["send", "x", "y"], ["tail", "x"]], ids=lambda c: c[0])
def test_a_wrong_key_is_one_line_and_an_exit_code(shell: Shell, command: list[str]) -> None:
    wrong = failure(1, shell(*command, SESSIONS_KEY="tr_dev_" + "w" * 24))
    assert "Invalid API key (unauthenticated, request " in wrong


@pytest.mark.parametrize("command", [["show", "x"], ["send", "x", "y"], ["tail", "session_x"]], ids=lambda c: c[0])
def test_what_is_not_there_is_3(shell: Shell, command: list[str]) -> None:
    assert "not found (session_not_found, request " in failure(3, shell(*command))


def test_no_server_and_no_key_say_what_to_do(shell: Shell) -> None:
    nowhere = failure(1, shell("tail", "x", SESSIONS_URL="http://127.0.0.1:1"))
    assert "http://127.0.0.1:1 (connection refused)" in nowhere
    assert "sessions serve" in nowhere
    assert "sessions env list --show-keys" in failure(1, shell("list", SESSIONS_KEY=""))
    assert "url must be" in failure(1, shell("list", SESSIONS_URL="localhost:8787"))
    assert "one word" in failure(1, shell("list", SESSIONS_KEY="two\nlines"))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["send", "x"],
        ["send", "x", "text", "--stop"],
        ["send", "x", "--stop", "--regenerate"],
        ["send", "x", "--stop", "--wait"],
        ["send", "x", "--action", "no json"],
        ["send", "x", "--raw", "--stop"],
        ["send", "session_x", "text", "--create", "echo"],
        ["send", "", "text"],
        ["tail", "x", "--from", "soon"],
        ["tail", "x", "--raw", "--json"],
        ["tail", "x", "--channel", "both"],
        ["list", "--status", "open"],
        ["list", "--limit", "0"],
        ["list", "--limit", "5", "--all"],
        ["list", "--key", "a", "--key-file", "b"],
        ["show", "x", "--runs", "101"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2_and_says_what_is_right(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.startswith("usage: ")) == ("", True)


def test_the_key_comes_from_an_option_a_file_or_the_environment(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "other").write_bytes(b"\xff\x00")
    assert shell("list", "--key", KEY, SESSIONS_KEY="wrong").returncode == 0
    assert shell("list", "--key-file", tmp_path / "key", SESSIONS_KEY="wrong").returncode == 0
    for path in ("other", "missing"):
        refused = shell("list", "--key-file", tmp_path / path)
        assert (refused.returncode, refused.stderr.startswith("sessions: --key-file cannot be read")) == (1, True)
    assert shell("list", "--url", shell.given["SESSIONS_URL"] + "/", SESSIONS_URL="http://127.0.0.1:1").returncode == 0


def test_ids_may_be_anything_that_http_can_carry(shell: Shell) -> None:
    for name in ("a/b c?d#e%2F", "ä🦀", "../x", "-x"):
        done = shell("send", "--create", "echo", "--wait", "--", name, "hi")
        assert (done.returncode, done.stdout) == (0, "you said: hi\n"), done.stderr
        shown = shell("show", "--json", "--", name)
        assert json.loads(shown.stdout)["session"]["externalId"] == name


def test_whatever_a_record_says_reaches_no_terminal_unescaped(shell: Shell) -> None:
    shell("send", "evil", "-", "--create", "echo", "--wait", stdin=f"{EVIL}end")
    for arguments in (["tail", "evil"], ["tail", "evil", "--json"], ["tail", "evil", "--channel", "in"]):
        out = shell(*arguments, "--no-follow").stdout
        assert "owned" in out
        assert all(character.isprintable() or character == "\n" for character in out)
    shell("send", "evil", EVIL, "--raw")
    with AtTerminal.run("tail", "evil", "--channel", "in", "--raw", "--no-follow", **shell.given) as terminal:
        assert terminal.end() == 0
    assert r"\x1b]0;owned\x07" in terminal.shown
    assert "\x07" not in terminal.shown


# --- at a terminal ---


def test_a_terminal_shows_colours_and_a_pipe_does_not(shell: Shell) -> None:
    shell("send", "colours", "hi", "--create", "echo", "--wait")
    with AtTerminal.run("tail", "colours", "--no-follow", **shell.given) as terminal:
        assert terminal.end() == 0
    assert "you said: hi\r\n\x1b[2m-- turn complete" in terminal.shown
    assert "\x1b" not in shell("tail", "colours", "--no-follow").stdout
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        with AtTerminal.run("tail", "colours", "--no-follow", **shell.given, **plain) as terminal:
            assert terminal.end() == 0
        assert "\x1b" not in terminal.shown
        assert "you said: hi\r\n-- turn complete" in terminal.shown


def test_a_terminal_is_told_what_is_waited_for_after_two_seconds(shell: Shell) -> None:
    with AtTerminal.run("send", "slowly", "x", "--create", "nobody-runs-this", "--wait", **shell.given) as terminal:
        terminal.wait_for("waiting for the answer of slowly … 2 s")
        assert terminal.interrupt() == 130
    assert "Traceback" not in terminal.shown
    assert terminal.shown.endswith("\x1b[K"), "the line is taken away"


def test_an_answer_is_shown_as_it_comes(shell: Shell) -> None:
    with AtTerminal.run("send", "flow", "slow", "--create", "echo", "--wait", **shell.given) as terminal:
        terminal.wait_for("you said: slow 1 2 3")
        assert "39" not in terminal.shown
        assert terminal.end() == 0
    assert terminal.shown.endswith(" 38 39\r\n")


def test_ctrl_c_leaves_the_prompt_on_a_line_of_its_own(shell: Shell) -> None:
    shell("send", "prompt", "slow", "--create", "echo")
    with AtTerminal.run("tail", "prompt", **shell.given) as terminal:
        terminal.wait_for("you said: slow 1 2 3")
        assert terminal.interrupt() == 130
    assert terminal.shown.endswith("\r\n")
    assert "Traceback" not in terminal.shown


@pytest.mark.kill
def test_a_terminal_is_told_that_the_server_has_gone(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        shell = shell_for(server)
        shell("send", "gone", "slow", "--create", "echo")
        with AtTerminal.run("tail", "gone", "--until-turn-complete", **shell.given) as terminal:
            terminal.wait_for("1 2 3")
            server.kill()
            terminal.wait_for(f"sessions: the connection to {server.address} is lost; trying again")
            server.start()
            assert terminal.end() == 0
    assert "-- turn complete" in terminal.shown


# --- harness ---


def create(server: ServerProcess, name: str, task: str, **more: Any) -> None:
    body = {"type": "t", "externalId": name, "taskIdentifier": task, "triggerConfig": {"basePayload": {}}, **more}
    post(server, "/api/v1/sessions", body)


def close(server: ServerProcess, name: str) -> None:
    post(server, f"/api/v1/sessions/{name}/close", {"reason": "over"})


def post(server: ServerProcess, path: str, body: Any) -> None:
    command = ["curl", "-sf", "-H", f"Authorization: Bearer {KEY}", server.address + path, "-d", json.dumps(body)]
    subprocess.run(command, capture_output=True, timeout=20, check=True)


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
