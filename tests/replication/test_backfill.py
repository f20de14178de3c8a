"""Sessions older than the slot: brought by a backfill, beside writers and a replicator, through kills and restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import anyio
import anyio.to_thread
import pytest

from harness.replication import CLOSE, DELETE, INSERT, UPDATE, Load, Notes, Stage
from sessions_adapters.profiles import open_replication
from sessions_core.domain.events import BackfillAdvanced
from sessions_core.ports.change_feed import Change, ChangeKind

pytestmark = [pytest.mark.needs_postgres, pytest.mark.needs_clickhouse, pytest.mark.slow, pytest.mark.timeout(180)]


async def insert(stage: Stage, first: int, last: int) -> None:
    async with stage.connection() as connection:
        await connection.execute(INSERT, first, last)


async def test_sessions_from_before_the_slot_are_brought(stage: Stage) -> None:
    await insert(stage, 1, 2500)
    notes = Notes()
    async with open_replication(stage.settings(), notes) as replication:
        ended = await replication.backfill.run()
    assert ended.done == 2500
    assert await stage.indexed() == await stage.stored()
    assert [event.done for event in notes.events if isinstance(event, BackfillAdvanced)] == [0, 1000, 2000, 2500]


async def test_what_changed_after_a_row_was_read_wins_whenever_it_comes(stage: Stage) -> None:
    """All is read first, then changed, and the changes are written before what was read."""
    await insert(stage, 1, 4)
    async with stage.replicating() as replication:
        backfill = replication.backfill
        chunk = await backfill.scan.read(None, 10)
        async with stage.connection() as connection:
            await connection.execute(UPDATE, "session_1", "newer", json.dumps({"n": 1}))
            await connection.execute(CLOSE, "session_2", "done")
            await connection.execute(DELETE, "session_3")
        while len(await stage.indexed()) < 2:
            await anyio.sleep(0.02)
        late = [Change(ChangeKind.INSERT, row) for row in chunk.rows]
        await backfill.delivery.deliver(late, since=backfill.clock.now())
        rows = await stage.settle()
    assert "session_3" not in rows


async def test_a_backfill_beside_writers_and_the_replicator_leaves_nothing_out(stage: Stage) -> None:
    """The short form; ``python -m harness.replication --rows 1000000`` is the long one."""
    await insert(stage, 1, 20_000)
    async with stage.replicating() as replication:
        load = Load(stage)
        async with load.running():
            ended = await replication.backfill.run()
        rows = await stage.settle()
    assert ended.done >= 20_000
    assert load.commits > 10
    assert len(rows) > 20_000


@pytest.mark.kill
async def test_a_backfill_that_was_killed_goes_on_where_it_was(stage: Stage) -> None:
    await insert(stage, 1, 20_000)
    first = _backfill(stage)
    with anyio.fail_after(60):
        while (await _progress(stage)).get("done", 0) < 2000:
            await anyio.sleep(0.002)
    first.kill()
    await anyio.to_thread.run_sync(first.communicate)
    before = await _progress(stage)
    assert 0 < before["done"] < 20_000
    second = _backfill(stage)
    out, err = await anyio.to_thread.run_sync(second.communicate)
    assert second.returncode == 0, err
    assert out.splitlines()[-1] == "all 20000 sessions are in the index"
    told = [int(line.split()[1]) for line in err.splitlines() if line.startswith("backfill: ")]
    assert told[0] >= before["done"], "it did not begin anew"
    assert told[-1] == 20_000
    assert await stage.indexed() == await stage.stored()


async def test_a_backfill_that_is_told_to_stop_says_so_with_its_exit_code(stage: Stage) -> None:
    await insert(stage, 1, 20_000)
    process = _backfill(stage)
    while not await _progress(stage):
        await anyio.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    out, err = await anyio.to_thread.run_sync(process.communicate)
    assert process.returncode == 130, err
    assert "stopping" in out
    assert (await _progress(stage))["ended_at"] is None


async def test_a_session_that_cannot_be_read_becomes_a_dead_letter(stage: Stage) -> None:
    await insert(stage, 1, 3)
    async with stage.connection() as connection:
        await connection.execute("update session set environment_type = 'NOWHERE' where id = 'session_2'")
        async with open_replication(stage.settings(), Notes()) as replication:
            ended = await replication.backfill.run()
        letters = await connection.fetch("select session_id, kind, columns from dead_letter")
        await connection.execute("delete from session where id = 'session_2'")
    assert ended.done == 3
    assert sorted(await stage.indexed()) == ["session_1", "session_3"]
    assert [(row["session_id"], row["kind"]) for row in letters] == [("session_2", "insert")]
    assert json.loads(letters[0]["columns"])["environment_type"] == "NOWHERE"


async def _progress(stage: Stage) -> dict[str, Any]:
    async with stage.connection() as connection:
        row = await connection.fetchrow("select * from backfill")
    return {} if row is None else dict(row)


def _backfill(stage: Stage) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sessions_server", "replicate", "--backfill"],
        env={**os.environ, **stage.variables(), "SESSIONS_LOG_JSON": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
