"""``sessions list`` and ``show`` against a real server."""

from __future__ import annotations

import pytest

from harness.server import ServerProcess
from harness.shell import Shell, close, create, post

pytestmark = pytest.mark.slow


def test_the_list_is_a_table_or_a_document(shell: Shell) -> None:
    for number in range(3):
        shell("send", f"list-{number}", "x", "--create", "list-task")
    rows = shell.json("list", "--task", "list-task")
    assert [row["externalId"] for row in rows] == ["list-2", "list-1", "list-0"]
    assert {row["status"] for row in rows} == {"ACTIVE"}
    done = shell("list", "--task", "list-task")
    head, *lines = done.stdout.splitlines()
    assert head.split("  ")[0] == "ID"
    assert [line.split()[:3] for line in lines] == [[r["id"], r["externalId"], "ACTIVE"] for r in rows]
    assert done.stderr == ""


def test_the_list_is_filtered_and_cut(shell: Shell, server: ServerProcess) -> None:
    for number in range(4):
        create(server, f"cut-{number}", task="cut-task", tags=["even" if number % 2 == 0 else "odd", "all"])
    close(server, "cut-0")

    def listed(*arguments: str) -> list[str]:
        return [row["externalId"][4:] for row in shell.json("list", "--task", "cut-task", *arguments)]

    assert listed() == ["3", "2", "1", "0"]
    assert listed("--limit", "3") == ["3", "2", "1"]
    assert listed("--tag", "odd") == ["3", "1"]
    assert listed("--status", "closed") == ["0"]
    assert listed("--status", "active", "--status", "CLOSED", "--tag", "even") == ["2", "0"]
    assert listed("--all") == ["3", "2", "1", "0"]
    assert shell.json("list", "--task", "nothing") == []
    assert shell("list", "--task", "nothing").stdout == ""


def test_the_list_follows_its_pages(shell: Shell, server: ServerProcess) -> None:
    for number in range(103):
        create(server, f"page-{number}", task="page-task")
    expected = [f"page-{number}" for number in reversed(range(103))]
    assert [row["externalId"] for row in shell.json("list", "--task", "page-task", "--all")] == expected
    assert len(shell.json("list", "--task", "page-task", "--limit", "102")) == 102
    assert len(shell.json("list", "--task", "page-task")) == 20


def test_a_session_is_shown_with_its_runs_waits_and_channels(shell: Shell, server: ServerProcess) -> None:
    shell("send", "whole", "hi", "--create", "echo", "--wait")
    run = shell.json("show", "whole")["runs"][0]["id"]
    wait = {"session": "whole", "io": "in", "timeout": "1h"}
    post(server, f"/api/v1/runs/{run}/session-streams/wait", wait)
    found = shell.json("show", "whole")
    assert (found["session"]["externalId"], found["session"]["status"]) == ("whole", "ACTIVE")
    assert [(line["status"], line["reason"], line["attempt"]) for line in found["runs"]] == [
        ("EXECUTING", "initial", 1)
    ]
    assert [(waitpoint["runId"], waitpoint["io"]) for waitpoint in found["waitpoints"]] == [(run, "in")]
    assert [(channel["io"], channel["nextSeqNum"]) for channel in found["channels"]] == [("in", 1), ("out", 8)]
    text = shell("show", found["session"]["id"]).stdout
    for expected in (
        "external id  whole\n",
        f"{run}  EXECUTING  initial  attempt 1",
        "in after seq 0",
        "first seq 0, next 8",
        "open: run version 1 reads it",
        "open to epoch 1",
    ):
        assert expected in text
    close(server, "whole")
    closed = shell("show", "whole").stdout
    assert "status       CLOSED since 2" in closed
    assert closed.count("sealed: takes no records any more") == 2
