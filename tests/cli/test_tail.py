"""``sessions tail`` against a real server, as a person or a script uses it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from harness.command import PATIENCE, PROGRAM, AtTerminal, environment
from harness.server import ServerProcess
from harness.shell import Shell, shell_for, wait_until

pytestmark = pytest.mark.slow


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


def test_a_session_that_is_not_there_and_has_no_records_is_3_without_following(shell: Shell) -> None:
    for arguments in ([], ["--json"], ["--from", "end"], ["--channel", "in"]):
        done = shell("tail", "mistyped", "--no-follow", *arguments)
        assert (done.returncode, done.stdout) == (3, "")
        assert "not found (session_not_found, request " in done.stderr
    shell("send", "empty", "x", "--create", "nobody-runs-this")
    assert shell("tail", "empty", "--no-follow").returncode == 0


def test_a_person_is_told_that_a_session_is_not_there_yet(shell: Shell) -> None:
    with AtTerminal.run("tail", "early", "--until-turn-complete", **shell.given) as terminal:
        terminal.wait_for("sessions: there is no session early yet; waiting for it\r\n")
        shell("send", "early", "hi", "--create", "echo")
        assert terminal.end() == 0
    assert "you said: hi" in terminal.shown
    with AtTerminal.run("tail", "early", "--no-follow", **shell.given) as terminal:
        assert terminal.end() == 0
    assert "there is no session" not in terminal.shown


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
