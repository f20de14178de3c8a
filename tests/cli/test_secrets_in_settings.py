"""Whatever goes wrong with them, no command repeats the secrets in its settings."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.command import PROGRAM, environment, sessions
from harness.secrets import Secrets
from sessions_adapters.fernet import FernetCipher
from sessions_server.cli import main

AWAY = [
    ("doctor", "--json"),
    ("migrate",),
    ("serve", "--port", "0"),
    ("worker",),
    ("replicate",),
    ("env", "re-encrypt", "--new-key"),
    ("list",),
]
UNREADABLE = [("doctor",), ("serve", "--port", "0"), ("env", "list", "--show-keys"), ("send", "chat", "hello")]


@pytest.fixture
def secrets() -> Secrets:
    return Secrets()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and nobody gets meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def settings(secrets: Secrets, port: int) -> dict[str, str]:
    """Return settings full of secrets for systems that are not there."""
    password = {name: secrets.add(f"{name} password", f"hunter2-of-{name}") for name in ("pg", "redis", "clickhouse")}
    here = f"127.0.0.1:{port}"
    return {
        "SESSIONS_PROFILE": "scale",
        "SESSIONS_DATABASE_URL": f"postgresql://sessions:{password['pg']}@{here}/sessions",
        "SESSIONS_REDIS_URL": f"redis://:{password['redis']}@{here}/0",
        "SESSIONS_CLICKHOUSE_URL": f"http://sessions:{password['clickhouse']}@{here}",
        "SESSIONS_S2_URL": f"s2://:{secrets.add('S2 token', 'hunter2-of-s2-basins')}@a-basin-of-ours?endpoint=http://{here}",
        "SESSIONS_ENCRYPTION_KEY": secrets.add("encryption key", FernetCipher.generate_key().decode()),
        "SESSIONS_DEV_KEY": secrets.add("development key", "tr_dev_" + "dEvKeY99" * 3),
        "SESSIONS_WEBHOOK_SECRET": secrets.add("webhook secret", "whsec_" + "V2ViSG9vazEy" * 3),
        "SESSIONS_KEY": secrets.add("key of a client", "tr_dev_" + "cLiEnT88" * 3),
        "SESSIONS_URL": f"http://{here}",
        "SESSIONS_LOG_LEVEL": "DEBUG",
    }


def broken(given: dict[str, str]) -> dict[str, str]:
    """Return the same settings, each with something that cannot be read."""
    return {
        **given,
        "SESSIONS_DATABASE_URL": given["SESSIONS_DATABASE_URL"].replace("postgresql:", "mysql:"),
        "SESSIONS_REDIS_URL": given["SESSIONS_REDIS_URL"].replace("redis:", "redish:"),
        "SESSIONS_CLICKHOUSE_URL": given["SESSIONS_CLICKHOUSE_URL"] + ":99999999",
        "SESSIONS_S2_URL": given["SESSIONS_S2_URL"].replace("s2:", "s3:"),
        "SESSIONS_ENCRYPTION_KEY": given["SESSIONS_ENCRYPTION_KEY"][:-3],
        "SESSIONS_DEV_KEY": given["SESSIONS_DEV_KEY"] + "-",
        "SESSIONS_KEY": given["SESSIONS_KEY"] + "\n",
        "SESSIONS_URL": given["SESSIONS_URL"].replace("//", f"//u:{given['SESSIONS_KEY']}@"),
    }


@pytest.mark.parametrize("command", AWAY, ids=" ".join)
def test_systems_that_are_away(command: tuple[str, ...], secrets: Secrets, closed_port: int, tmp_path: Path) -> None:
    given = settings(secrets, closed_port)
    done = sessions(*command, **given, SESSIONS_DATA=str(tmp_path))
    assert done.returncode == 1, done
    assert secrets.found_in(done.stdout + done.stderr) == []


@pytest.mark.parametrize("command", UNREADABLE, ids=" ".join)
def test_settings_that_cannot_be_read(
    command: tuple[str, ...], secrets: Secrets, closed_port: int, tmp_path: Path
) -> None:
    given = broken(settings(secrets, closed_port))
    done = sessions(*command, **given, SESSIONS_DATA=str(tmp_path))
    assert done.returncode == 1, done
    assert secrets.found_in(done.stdout + done.stderr) == []


@pytest.mark.parametrize("words", [(), ("serve",), ("doctor",), ("env", "create"), ("env", "key", "create"), ("tail",)])
def test_help(
    words: tuple[str, ...],
    secrets: Secrets,
    closed_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in settings(secrets, closed_port).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    assert secrets.found_in(capsys.readouterr().out) == []


def test_a_key_in_a_file_is_in_no_title(secrets: Secrets, tmp_path: Path) -> None:
    key = secrets.add("key", "tr_dev_" + "fIlEkEy1" * 3)
    (tmp_path / "key").write_text(key)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [*PROGRAM, "list", "--url", url, "--key-file", str(tmp_path / "key")]
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            connection, _ = silent.accept()
            with connection:
                assert key.encode() in connection.recv(65_536)
                assert secrets.found_in(Path(f"/proc/{process.pid}/cmdline").read_text()) == []
        finally:
            process.kill()
            output, _ = process.communicate()
    assert secrets.found_in(output.decode()) == []
