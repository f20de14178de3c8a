"""Standard streams that are closed or full, and Ctrl-C before anything has begun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.command import PROGRAM, environment
from harness.server import ServerProcess
from harness.shell import Shell, create

pytestmark = pytest.mark.slow

INTERRUPTED = """
import os, signal, sys

class Interrupter:
    def find_spec(self, name, *_):
        if name == "aiohttp.client":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupter())
from sessions_server.cli import main
sys.exit(main(["list"]))
"""


def redirected(shell: Shell, command: str, redirections: str) -> subprocess.CompletedProcess[str]:
    """Run ``sessions`` with the redirections of a POSIX shell."""
    script = f'exec "$@" {redirections}'
    arguments = ["sh", "-c", script, "sh", *PROGRAM, *command.split()]
    return subprocess.run(
        arguments, capture_output=True, text=True, timeout=50, check=False, env=environment(**shell.given)
    )


@pytest.mark.parametrize("command", ["list", "show x --json", "env list", "--help"])
def test_a_closed_standard_output_is_one_line(shell: Shell, command: str) -> None:
    done = redirected(shell, command, ">&-")
    assert (done.returncode, done.stderr) == (1, "sessions: standard output is closed\n")


@pytest.mark.parametrize("command", ["list --json", "show full", "tail full --no-follow --json"])
def test_a_full_disk_is_one_line(shell: Shell, server: ServerProcess, command: str) -> None:
    create(server, "full", "echo")
    shell("send", "full", "hi", "--wait")
    done = redirected(shell, command, ">/dev/full")
    assert (done.returncode, done.stderr) == (1, "sessions: [Errno 28] No space left on device\n")


def test_environments_for_a_full_disk_are_one_line(shell: Shell, tmp_path: Path) -> None:
    done = redirected(shell, f"env create --data {tmp_path}", ">/dev/full")
    assert (done.returncode, done.stderr) == (1, "sessions: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"], ids=["closed", "full"])
def test_a_standard_error_that_takes_nothing_changes_no_result(shell: Shell, redirection: str) -> None:
    fine = redirected(shell, "list --json", redirection)
    assert (fine.returncode, fine.stdout[:1]) == (0, "[")
    missing = redirected(shell, "show nope", redirection)
    assert (missing.returncode, missing.stdout) == (3, "")


def test_both_closed_is_an_exit_code(shell: Shell) -> None:
    assert redirected(shell, "list", "<&- >&- 2>&-").returncode == 1


def test_a_ctrl_c_while_modules_are_imported_is_130_and_silent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=50, check=False, env=environment()
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
