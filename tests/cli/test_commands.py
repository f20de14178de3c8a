"""The ``sessions`` command as a person types it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from harness.command import PROGRAM, environment, sessions
from harness.server import KEY, ServerProcess

OTHER_KEY = "tr_dev_" + "k" * 24
FAILING_AGENT = """
import anyio
from sessions_core.chat import Agents, Run

agents = Agents()

@agents.task("echo")
async def echo(run: Run) -> None:
    async for turn in run.turns():
        async with turn:
            await turn.text("working")
            await anyio.sleep(60)
"""


def wait_for(server: ServerProcess, text: str) -> str:
    for _ in range(500):
        if found := [line for line in server.output if text in line]:
            return found[0]
        time.sleep(0.02)
    raise AssertionError("\n".join(server.output))


# --- sessions env ---


def test_an_environment_is_made_with_a_key_and_listed_without_it(tmp_path: Path) -> None:
    made = sessions("env", "create", "--data", tmp_path, "--type", "production", "--project", "shop", "--json")
    assert made.returncode == 0, made.stderr
    [row] = json.loads(made.stdout)
    assert re.fullmatch(r"tr_prod_[A-Za-z0-9]{24}", row["key"])
    listed = sessions("env", "list", "--data", tmp_path)
    assert listed.stdout.split() == [row["id"], "PRODUCTION", "default", "shop"]
    rotated = sessions("env", "rotate-key", row["id"], "--data", tmp_path, "--grace-hours", "0.5", "--json")
    [new] = json.loads(rotated.stdout)
    assert new["key"] != row["key"]
    shown = sessions("env", "list", "--show-keys", "--json", SESSIONS_DATA=str(tmp_path))
    assert json.loads(shown.stdout) == [new]


def test_an_environment_whose_keys_are_all_gone_is_listed_without_one(tmp_path: Path) -> None:
    [row] = json.loads(sessions("env", "create", "--data", tmp_path, "--json").stdout)
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as database, database:
        database.execute("delete from access_key where sealed is not null")
    listed = sessions("env", "list", "--show-keys", "--data", tmp_path)
    assert (listed.stdout.split(), listed.stderr) == ([row["id"], "DEVELOPMENT", "default", "default", "-"], "")
    shown = sessions("env", "list", "--show-keys", "--json", "--data", tmp_path)
    assert json.loads(shown.stdout) == [{**row, "key": None}]


def test_a_key_of_ones_own_has_to_be_one(tmp_path: Path) -> None:
    assert sessions("env", "create", "--data", tmp_path, "--key", OTHER_KEY).stdout.split()[-1] == OTHER_KEY
    for key in ("secret", "tr_dev_sk_" + "a" * 24, ""):
        refused = sessions("env", "create", "--data", tmp_path / "new", "--key", key)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith("sessions: --key must be tr_<dev|")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("action", [["list"], ["rotate-key", "env_x"]], ids=["list", "rotate-key"])
def test_a_directory_without_a_database_is_refused_and_not_made(tmp_path: Path, action: list[str]) -> None:
    refused = sessions("env", *action, "--data", tmp_path / "typo")
    assert refused.returncode == 1
    assert str(tmp_path / "typo") in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("hours", ["nan", "-1", "inf", "1e300", "soon"])
def test_hours_that_are_none_are_a_usage_error(tmp_path: Path, hours: str) -> None:
    refused = sessions("env", "rotate-key", "env_x", "--data", tmp_path, f"--grace-hours={hours}")
    assert refused.returncode == 2
    assert "--grace-hours: must be a number" in refused.stderr


# --- sessions serve ---


def test_a_first_key_has_to_be_one(tmp_path: Path) -> None:
    refused = sessions("serve", "--port", "0", "--data", tmp_path / "new", SESSIONS_DEV_KEY="secret")
    assert refused.returncode == 1
    assert refused.stderr.startswith("sessions: --dev-key must be tr_<dev|")
    assert not (tmp_path / "new").exists()


def test_the_second_start_prints_the_command_that_shows_the_keys(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "my data") as server:
        assert wait_for(server, "development key:").endswith(KEY)
        assert server.stop() == 0
        server.output.clear()
        server.start()
        assert wait_for(server, "--dev-key was ignored")
        command = shlex.split(wait_for(server, "root keys: ").partition("root keys: ")[2])
        shown = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert shown.stdout.split()[-1] == KEY, shown


def test_agents_and_the_first_key_are_taken_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from sessions_core import Agents\nagents = Agents()\nagents.task('my-task')(print)"
    )
    given = {
        **os.environ,
        "SESSIONS_AGENTS": "mine:agents",
        "SESSIONS_DEV_KEY": OTHER_KEY,
        "SESSIONS_PORT": "0",
        "SESSIONS_DRAIN": "1",
    }
    process = subprocess.Popen(
        [*PROGRAM, "serve"], cwd=tmp_path, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    with process, process.stdout:
        lines = [process.stdout.readline() for _ in range(4)]
        process.terminate()
        process.stdout.read()
    assert lines[1].strip() == "agents: my-task"
    assert [line.split()[-1] for line in lines if line.startswith("development key: ")] == [OTHER_KEY]
    assert process.returncode == 0


def test_what_serve_prints_as_json_is_one_object_per_line(tmp_path: Path) -> None:
    command = [*PROGRAM, "serve", "--json", "--port", "0", "--data", str(tmp_path), "--dev-key", OTHER_KEY]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    welcome = json.loads(process.stdout.readline())
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert (welcome["event"], welcome["key"]) == ("listening", OTHER_KEY)
    assert "echo" in welcome["agents"]
    assert welcome["address"].startswith("http://127.0.0.1:")
    assert json.loads(out) == {"event": "stopping"}
    assert all(json.loads(line) for line in err.splitlines())


def test_the_first_conversation_that_serve_proposes_works(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", agents="sessions_server.bundled:agents") as server:
        wait_for(server, "tail hello")
        first = proposed(server)
        assert server.stop() == 0
        server.output.clear()
        server.start()
        wait_for(server, "try, in another terminal, with one of them in place of the dots:")
        wait_for(server, "tail hello")
        assert "SESSIONS_KEY=...\n" in proposed(server)
        for script in (first, proposed(server).replace("SESSIONS_KEY=...", f"SESSIONS_KEY={KEY}")):
            done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=50, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith("you said: hi\n")


def proposed(server: ServerProcess) -> str:
    """Return what the server proposes to try, with a quick answer and a tail that ends."""
    lines = [line.removeprefix("  ") for line in server.output if line.startswith("  ")]
    return "\n".join(lines).replace("tail hello", "tail hello --no-follow").replace("slow and steady", "hi")


def test_a_server_without_agents_proposes_nothing_that_would_never_be_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nobody.py").write_text("from sessions_core import Agents\nagents = Agents()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ServerProcess(tmp_path / "data", agents="nobody:agents") as server:
        assert server.stop() == 0
        wait_for(server, "sessions is stopping")
    assert {"agents: none", f"development key: {KEY}"} <= set(server.output)
    assert not any("--create" in line or "try" in line for line in server.output)


def test_a_port_that_is_taken_is_said_in_one_line(server: ServerProcess, tmp_path: Path) -> None:
    refused = sessions("serve", "--port", str(server.port), "--data", tmp_path)
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "--port" in refused.stderr


def test_what_is_no_http_is_refused_in_the_usual_form(server: ServerProcess) -> None:
    broken = [b"GET /\xc3\xa9 HTTP/1.1", b"GET /healthz HTTP/1.1\r\nno header", b"\x16\x03\x01\x02\x00"]
    for request in broken:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(request + b"\r\nHost: x\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split(b" ")[1] == b"400", answer
        assert b"\r\nX-Request-Id: " in head
        assert json.loads(body) == {"error": "The request is malformed", "code": "malformed_request"}
    assert "Traceback" not in "".join(server.output)


@pytest.mark.parametrize("again", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_server_that_waits_for_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: signal.Signals
) -> None:
    (tmp_path / "slow_agent.py").write_text(FAILING_AGENT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ServerProcess(tmp_path / "data", agents="slow_agent:agents", environment={"SESSIONS_DRAIN": "50"}) as server:
        start_a_turn(server.address)
        os.kill(server.pid, signal.SIGTERM)
        wait_for(server, "stopping")
        time.sleep(0.3)
        process = server._process
        assert process is not None
        assert process.poll() is None, "it waits for its run"
        os.kill(server.pid, again)
        assert process.wait(30) == -again


def test_runs_get_as_long_as_is_set_and_not_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_agent.py").write_text(FAILING_AGENT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ServerProcess(tmp_path / "data", agents="slow_agent:agents", environment={"SESSIONS_DRAIN": "0.2"}) as server:
        start_a_turn(server.address)
        assert server.stop(patience=30) == 0


def start_a_turn(address: str) -> None:
    """Create a session, say something, and wait until its run answers."""
    auth = ["-s", "-H", f"Authorization: Bearer {KEY}"]
    create = {"type": "t", "externalId": "c", "taskIdentifier": "echo", "triggerConfig": {"basePayload": {}}}
    curl(*auth, f"{address}/api/v1/sessions", "-d", json.dumps(create))
    curl(*auth, f"{address}/realtime/v1/sessions/c/in/append", "-d", '{"kind": "message", "payload": {}}')
    for _ in range(500):
        if "working" in curl(*auth, f"{address}/realtime/v1/sessions/c/out/records"):
            return
        time.sleep(0.02)
    raise AssertionError


def curl(*arguments: str) -> str:
    done = subprocess.run(["curl", *arguments], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout
