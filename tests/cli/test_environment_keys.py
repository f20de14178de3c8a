"""Additional keys, rotation and re-encryption from the command line, beside a server that goes on, on every store of its own."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.backends import environment_of, opened_backends
from harness.command import sessions
from harness.server import KEY, ServerProcess
from sessions_adapters.profiles import EMBEDDED, POSTGRES
from sessions_server.cli import main

pytestmark = pytest.mark.timeout(180)  # many commands, each a process of its own

PATIENCE = 60
LIST = "/api/v1/sessions"
TOKENS = "/api/v1/auth/public-tokens"
STORES = [EMBEDDED, pytest.param(POSTGRES, marks=pytest.mark.needs_postgres)]


@pytest.fixture(scope="module", params=STORES)
def own_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data = tmp_path_factory.mktemp("data")
    with (
        opened_backends(request.param, data) as backends,
        ServerProcess(data, environment=environment_of(backends)) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def environment_id(own_server: ServerProcess) -> str:
    name: str = rows("env", "list", server=own_server)[0]["id"]
    return name


def rows(*words: str, server: ServerProcess) -> list[dict[str, Any]]:
    """Run a command that prints JSON, with the settings of *server*."""
    done = sessions(*words, "--json", **server.environment)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def ask(server: ServerProcess, path: str, key: str, body: object = None) -> tuple[int, Any]:
    """Return the status and the body of a request."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.address + path, data, {"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)


def until(holds: Callable[[], bool]) -> None:
    """Wait for what a server sees within a second."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_additional_key_is_shown_once_used_and_revoked(own_server: ServerProcess, environment_id: str) -> None:
    words = ("--name", "ci", "--scope", "read:sessions", "--scope", "write:tasks:a:b", "--expires", "90d")
    [made] = rows("env", "key", "create", environment_id, *words, server=own_server)
    assert re.fullmatch(r"tr_dev_sk_[0-9a-zA-Z]{24}", made["key"])
    assert (made["name"], made["scopes"]) == ("ci", ["read:sessions", "write:tasks:a:b"])
    [listed] = rows("env", "key", "list", environment_id, server=own_server)
    assert listed["lastUsedAt"] is listed["revokedAt"] is None
    assert ask(own_server, LIST, made["key"])[0] == 200
    assert ask(own_server, TOKENS, made["key"], {"scopes": ["write:sessions"]})[0] == 403
    until(lambda: rows("env", "key", "list", environment_id, server=own_server)[0]["lastUsedAt"] is not None)
    [revoked] = rows("env", "key", "revoke", environment_id, made["id"], server=own_server)
    assert revoked["revokedAt"] is not None
    until(lambda: ask(own_server, LIST, made["key"])[0] == 401)
    shown = sessions("env", "key", "list", environment_id, **own_server.environment).stdout
    assert shown.splitlines()[0].split() == list(revoked)
    assert "read:sessions write:tasks:a:b" in shown
    assert made["key"] not in shown + "\n".join(own_server.output)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "the following arguments are required: --scope"),
        (("--scope", "raed:sessions"), "must begin with one of read, write, admin"),
        (("--scope", "read"), "must be action:type"),
        (("--scope", "read:session"), "must be action:type"),
        (("--scope", "read:sessions:"), "must not end with a colon"),
        (("--scope", ""), "must begin with"),
        (("--scope", "admin", "--expires", "soon"), "must be a duration"),
        (("--scope", "admin", "--expires", "0s"), "must be a duration"),
    ],
)
def test_what_can_be_no_key_is_a_usage_error(
    tmp_path: Path, words: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["env", "key", "create", "env_x", "--data", str(tmp_path / "new"), *words])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert reason in err
    assert not (tmp_path / "new").exists()


def test_scopes_that_mean_something_are_taken(own_server: ServerProcess, environment_id: str) -> None:
    scopes = ["admin", "admin:sessions", "*:all", "read:all", "write:sessions:a:b", "read:runs"]
    words = [word for scope in scopes for word in ("--scope", scope)]
    [made] = rows("env", "key", "create", environment_id, *words, server=own_server)
    assert (made["scopes"], made["name"], made["expiresAt"]) == (scopes, "", None)


def test_an_environment_or_key_that_is_not_there_is_not_found(own_server: ServerProcess, environment_id: str) -> None:
    for words in (
        ("create", "env_x", "--scope", "admin"),
        ("list", "env_x"),
        ("revoke", environment_id, "key_x"),
        ("revoke", "env_x", "key_" + "0" * 24),
    ):
        refused = sessions("env", "key", *words, **own_server.environment)
        assert (refused.returncode, refused.stdout) == (3, ""), words
        assert refused.stderr.endswith("not found\n")


def test_a_server_goes_on_when_its_encryption_key_is_replaced(own_server: ServerProcess) -> None:
    data, wish = own_server.data, {"scopes": ["read:sessions"]}
    _, before = ask(own_server, TOKENS, KEY, wish)
    done = sessions("env", "re-encrypt", "--new-key", **own_server.environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "root keys that the current encryption key now opens: 1\n"
    current, _ = (data / "encryption.key").read_text().split()
    (data / "encryption.key").write_text(current)
    time_is_up = time.monotonic() + 1.5  # longer than a root key is remembered
    until(lambda: time.monotonic() > time_is_up)
    status, after = ask(own_server, TOKENS, KEY, wish)
    assert status == 200
    for token in (before["token"], after["token"]):
        assert ask(own_server, LIST, token)[0] == 200
    assert rows("env", "re-encrypt", server=own_server) == [{"rootKeys": 1}]


def test_a_key_from_the_settings_is_not_replaced_in_a_file(tmp_path: Path) -> None:
    given = {"SESSIONS_ENCRYPTION_KEY": "A" * 43 + "="}
    assert sessions("env", "create", "--data", tmp_path, **given).returncode == 0
    refused = sessions("env", "re-encrypt", "--new-key", "--data", tmp_path, **given)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("sessions: encryption_key (SESSIONS_ENCRYPTION_KEY) is set: put a new key before")
    assert not (tmp_path / "encryption.key").exists()
