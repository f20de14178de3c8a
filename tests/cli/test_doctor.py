"""``sessions doctor`` as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
