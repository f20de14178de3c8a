"""What a command says where a driver is not installed that a setting asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.command import sessions

NOWHERE = "127.0.0.1:1"
SETTINGS = {
    "asyncpg": {"SESSIONS_PROFILE": "postgres", "SESSIONS_DATABASE_URL": f"postgresql://{NOWHERE}/x"},
    "s2_sdk": {"SESSIONS_S2_URL": f"s2://a-basin-of-ours?endpoint=http://{NOWHERE}"},
    "redis": {"SESSIONS_REDIS_URL": f"redis://{NOWHERE}"},
    "clickhouse_connect": {"SESSIONS_INDEX": "clickhouse", "SESSIONS_CLICKHOUSE_URL": f"http://{NOWHERE}"},
}
REMEDIES = {
    "asyncpg": "A store in Postgres needs asyncpg: pip install 'sessions[postgres]'",
    "s2_sdk": "A log in S2 needs s2-sdk: pip install 'sessions[s2]'",
    "redis": "What is kept in Redis needs redis: pip install 'sessions[redis]'",
    "clickhouse_connect": "An index in ClickHouse needs clickhouse-connect: pip install 'sessions[clickhouse]'",
}
COMMANDS = [
    ("serve", "asyncpg"),
    ("serve", "s2_sdk"),
    ("serve", "redis"),
    ("serve", "clickhouse_connect"),
    ("migrate", "asyncpg"),
    ("migrate", "clickhouse_connect"),
    ("env list", "asyncpg"),
]


@pytest.fixture
def without(tmp_path: Path) -> Path:
    """A folder for ``PYTHONPATH`` in which :func:`hide` makes packages look as if they were not installed."""
    folder = tmp_path / "hidden"
    folder.mkdir()
    return folder


def hide(package: str, folder: Path) -> None:
    """Let an import of *package* fail where *folder* comes first on the path."""
    (folder / f"{package}.py").write_text(f"raise ModuleNotFoundError('No module named {package}', name='{package}')\n")


@pytest.mark.parametrize(("command", "package"), COMMANDS)
def test_it_says_in_one_line_what_to_install(command: str, package: str, without: Path, tmp_path: Path) -> None:
    hide(package, without)
    settings = {**SETTINGS[package], "SESSIONS_DATA": str(tmp_path / "data"), "PYTHONPATH": str(without)}
    done = sessions(*command.split(), **settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"sessions: {REMEDIES[package]}\n"


@pytest.mark.parametrize("package", SETTINGS)
def test_doctor_finds_it_and_goes_on(package: str, without: Path, tmp_path: Path) -> None:
    hide(package, without)
    settings = {**SETTINGS[package], "SESSIONS_DATA": str(tmp_path / "data"), "PYTHONPATH": str(without)}
    done = sessions("doctor", **settings)
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = [line for line in done.stdout.splitlines() if " extra " in line]
    assert line.startswith("error ")
    assert line.endswith(REMEDIES[package])
