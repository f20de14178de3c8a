"""``sessions doctor`` as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from harness.command import sessions

SECRET = "hunter2"


def doctor(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sessions_server", "doctor", *words]
    variables = {**os.environ, **environment}
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=50)


def test_a_line_for_each_thing_and_0_if_nothing_keeps_a_server_from_starting(tmp_path: Path) -> None:
    done = doctor(SESSIONS_DATA=str(tmp_path / "data"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout == f"ok  SQLite  file  {tmp_path / 'data' / 'sessions.db'} is not there yet; the server makes it\n"
    )


def test_1_if_there_is_an_error_and_no_secret_anywhere() -> None:
    broken = {
        "SESSIONS_PROFILE": "scale",
        "SESSIONS_DATABASE_URL": f"postgresql://sessions:{SECRET}@127.0.0.1:1/sessions",
        "SESSIONS_S2_URL": f"s2://:{SECRET}@a-basin-of-ours?endpoint=http://127.0.0.1:1",
        "SESSIONS_CLICKHOUSE_URL": f"http://sessions:{SECRET}@127.0.0.1:1",
    }
    done = doctor(**broken)
    assert (done.returncode, done.stderr) == (1, "")
    assert SECRET not in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[:3] for line in lines] == [
        ["error", "Postgres", "reachable"],
        ["error", "S2", "reachable"],
        ["error", "Redis", "setting"],
        ["error", "ClickHouse", "reachable"],
        ["error", "replication", "reachable"],
    ]
    as_json = doctor("--json", **broken)
    assert as_json.returncode == 1
    rows = json.loads(as_json.stdout)
    assert [row["system"] for row in rows] == [line[1] for line in lines]
    assert set(rows[0]) == {"health", "system", "check", "message"}


def test_a_profile_that_does_not_exist_is_one_sentence() -> None:
    done = doctor(SESSIONS_PROFILE="cloud")
    assert (done.returncode, done.stdout) == (1, "")
    assert "(SESSIONS_PROFILE) must be one of memory, embedded, postgres, scale" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_migrate_says_why_it_cannot_and_what_to_do_next() -> None:
    given = {"SESSIONS_PROFILE": "postgres", "SESSIONS_DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/none"}
    ended = sessions("migrate", **given)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "could not be brought up to date: connection refused" in ended.stderr
    assert "sessions doctor" in ended.stderr
    assert "hunter2" not in ended.stderr


def test_a_url_that_cannot_be_read_is_a_line_without_the_password() -> None:
    given = {"SESSIONS_PROFILE": "postgres", "SESSIONS_DATABASE_URL": "postgresql://u:hunter#2@127.0.0.1/none"}
    for command in (["doctor"], ["migrate"], ["env", "list"]):
        ended = sessions(*command, **given)
        assert ended.returncode == 1
        assert "SESSIONS_DATABASE_URL" in ended.stdout + ended.stderr
        assert "hunter" not in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
