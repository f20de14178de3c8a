"""The same commands at a terminal, where a person watches."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.command import AtTerminal
from harness.server import ServerProcess
from harness.shell import Shell, shell_for

pytestmark = pytest.mark.slow


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
