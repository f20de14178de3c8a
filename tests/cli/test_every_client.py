"""What all commands that talk to a server have in common: keys, addresses, errors, ids, usage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.command import AtTerminal
from harness.server import KEY
from harness.shell import Done, Shell
from sessions_server.cli import main

pytestmark = pytest.mark.slow
EVIL = "\x1b]0;owned\x07\x1b[31m\x9b2J\r"


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
        ["send", "x", "--action", "NaN"],
        ["send", "x", "--action", "[1e999]"],
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
