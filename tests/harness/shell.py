"""Somebody who uses ``sessions`` against a server, and what the tests of it need to do on that server."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from harness.command import PATIENCE, PROGRAM, environment, sessions
from harness.server import KEY, ServerProcess

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


def create(server: ServerProcess, name: str, task: str, **more: Any) -> None:
    body = {"type": "t", "externalId": name, "taskIdentifier": task, "triggerConfig": {"basePayload": {}}, **more}
    post(server, "/api/v1/sessions", body)


def close(server: ServerProcess, name: str) -> None:
    post(server, f"/api/v1/sessions/{name}/close", {"reason": "over"})


def post(server: ServerProcess, path: str, body: Any) -> None:
    command = ["curl", "-sf", "-H", f"Authorization: Bearer {KEY}", server.address + path, "-d", json.dumps(body)]
    subprocess.run(command, capture_output=True, timeout=20, check=True)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
