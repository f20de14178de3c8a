"""Processes that replicate: killed, stopped, followed by others. Items 48 and 53 to 60 of the contract's section 14."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import pytest

from harness.replication import INSERT, STREAMS, Load, Notes, ReplicateProcess, Stage, kill_rounds
from sessions_adapters.profiles import open_replication
from sessions_core.domain.events import ReplicationStreamClosed

pytestmark = [pytest.mark.needs_postgres, pytest.mark.needs_clickhouse, pytest.mark.slow, pytest.mark.timeout(180)]

PATIENCE_SECONDS = 60
ROUNDS = 3
VERSIONS = "SELECT count(), uniqExact(session_id, _version) FROM sessions_v1"
LEADERS = "select count(distinct pid) from pg_locks where locktype = 'advisory'"
CONNECTIONS = "select count(*) from pg_stat_activity where backend_type in ('client backend', 'walsender')"


async def insert(stage: Stage, first: int, last: int) -> None:
    async with stage.connection() as connection:
        await connection.execute(INSERT, first, last)


async def ask(process: ReplicateProcess, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(process.address + path) as answer:
        return answer.status, await answer.text()


async def word_of(process: ReplicateProcess) -> str:
    _, text = await ask(process, "/readyz")
    return str(json.loads(text)["replication"])


async def until_word(process: ReplicateProcess, word: str) -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        while await word_of(process) != word:
            await anyio.sleep(0.02)


async def count(stage: Stage) -> tuple[int, int]:
    """Return how many rows have been written, and how many different ones."""
    async with stage.index() as index:
        [(rows, different)] = await index.query(VERSIONS, {})
    return rows, different


async def start(process: ReplicateProcess) -> ReplicateProcess:
    return await anyio.to_thread.run_sync(process.start)


async def stop(process: ReplicateProcess) -> int:
    return await anyio.to_thread.run_sync(process.stop)


async def test_a_second_process_takes_over_when_the_first_one_leaves_items_48_and_56(stage: Stage) -> None:
    with stage.replicate() as first, stage.replicate() as second:
        await until_word(first, "leader") if await word_of(second) != "leader" else None
        await stage.until_streaming()
        words = sorted([await word_of(first), await word_of(second)])
        assert words == ["leader", "standby"]
        leader, other = (first, second) if await word_of(first) == "leader" else (second, first)
        await insert(stage, 1, 100)
        await stage.settle()
        assert await stop(leader) == 0
        await until_word(other, "leader")
        await insert(stage, 101, 200)
        assert len(await stage.settle()) == 200


async def test_two_processes_on_one_slot_never_both_lead_nor_write_item_56(stage: Stage) -> None:
    """Postgres is asked all the time who streams, the processes say when they lead, and what is written twice is a row more."""
    with stage.replicate() as first, stage.replicate() as second:
        await stage.until_streaming()
        most = 0
        async with Load(stage).running(), stage.connection() as connection:
            for round_ in range(2):
                for _ in range(50):
                    most = max(most, await connection.fetchval(STREAMS))
                    await anyio.sleep(0.01)
                if round_ == 0:  # the other one takes over amid the load
                    assert await stop(first if await word_of(first) == "leader" else second) == 0
        await stage.settle()
    assert most == 1
    leads = [is_leader for _, is_leader in sorted(leadership(first) + leadership(second))]
    assert leads == [True, False] * (len(leads) // 2), "each begins after the one before has ended"
    assert len(leads) >= 4
    rows, different = await count(stage)
    assert rows == different


def leadership(process: ReplicateProcess) -> list[tuple[str, bool]]:
    """Return when the process began and ceased to lead, by its log."""
    lines = [json.loads(line) for line in process.output if line.startswith("{")]
    return [(line["time"], line["event"]["is_leader"]) for line in lines if line["message"] == "LeadershipChanged"]


async def test_nothing_comes_again_after_a_clean_stop_item_54(stage: Stage) -> None:
    with stage.replicate() as process:
        await stage.until_streaming()
        async with Load(stage).running():
            await anyio.sleep(1)
        assert await stop(process) == 0
        assert await stage.indexed() == await stage.stored(), "what has been committed is written before the end"
        before = await count(stage)
        await start(process)
        await stage.until_streaming()
        await insert(stage, 1, 1)
        await stage.settle()
        rows, different = await count(stage)
    assert (rows, different) == (before[0] + 1, before[1] + 1)


async def test_a_stop_amid_a_transaction_leaves_it_to_the_next_process_item_53(stage: Stage) -> None:
    async with stage.connection() as connection:
        with stage.replicate() as process:
            await stage.until_streaming()
            async with connection.transaction():
                await connection.execute(INSERT, 1, 500)
                assert await stop(process) == 0
            assert await stage.indexed() == {}
            await start(process)
            assert len(await stage.settle()) == 500


async def test_a_sink_that_is_away_is_waited_for_and_told_of(stage: Stage) -> None:
    with stage.replicate() as process:
        await until_word(process, "leader")
        await stage.until_streaming()
        await anyio.to_thread.run_sync(stage.sink.kill)
        await insert(stage, 1, 50)
        await until_word(process, "failing")
        assert (await ask(process, "/readyz"))[0] == 503
        assert (await ask(process, "/healthz"))[0] == 200
        await anyio.to_thread.run_sync(stage.sink.start)
        assert len(await stage.settle()) == 50
        await until_word(process, "leader")


async def test_a_store_that_is_away_is_waited_for_and_told_of(stage: Stage) -> None:
    with stage.replicate() as process, stage.replicate() as standby:
        await stage.until_streaming()
        await anyio.to_thread.run_sync(stage.postgres.kill)
        for one in (process, standby):
            await until_word(one, "failing")
            assert (await ask(one, "/readyz"))[0] == 503
        await anyio.to_thread.run_sync(stage.postgres.start)
        await insert(stage, 1, 50)
        assert len(await stage.settle()) == 50
        with anyio.fail_after(PATIENCE_SECONDS):
            while sorted([await word_of(process), await word_of(standby)]) != ["leader", "standby"]:
                await anyio.sleep(0.02)


async def test_changes_that_are_left_out_since_somebody_altered_the_publication_are_told_of(stage: Stage) -> None:
    """Nothing else would show it: the stream is open, and quiet. What was left out comes with a backfill."""
    name = "sessions_to_clickhouse_v1_publication"
    with stage.replicate() as process:
        await stage.until_streaming()
        async with stage.connection() as connection:
            await connection.execute(f"alter publication {name} drop table session")
            await insert(stage, 1, 50)
            await until_word(process, "failing")
            assert (await ask(process, "/readyz"))[0] == 503
            await connection.execute(f"alter publication {name} add table session")
        await until_word(process, "leader")
        assert any("ADD TABLE" in line and "backfill" in line for line in process.output)
        async with open_replication(stage.settings(), Notes()) as replication:
            await replication.backfill.run()
        await insert(stage, 51, 60)
        assert len(await stage.settle()) == 60


async def test_metrics_have_the_names_of_the_contract_item_55(stage: Stage) -> None:
    with stage.replicate() as process:
        await stage.until_streaming()
        await insert(stage, 1, 5)
        await stage.settle()
        with anyio.fail_after(PATIENCE_SECONDS):
            while "sessions_replication_retained_wal_bytes" not in (text := (await ask(process, "/metrics"))[1]):
                await anyio.sleep(0.1)
    values = dict(re.findall(r"^(sessions_replication_\S+) (\S+)$", text, re.MULTILINE))
    assert float(values["sessions_replication_sessions_inserted_total"]) == 5
    assert float(values['sessions_replication_events_processed_total{event_type="insert"}']) == 5
    assert float(values['sessions_replication_batches_flushed_total{success="true"}']) >= 1
    assert float(values['sessions_replication_insert_retries_total{operation="sessions"}']) == 0
    for name in ("replication_lag_ms", "batch_size", "flush_duration_ms", "flush_lag_seconds"):
        assert float(values[f"sessions_replication_{name}_count"]) >= 1
    assert float(values["sessions_replication_lag_bytes"]) >= 0
    assert float(values["sessions_replication_dead_letters_total"]) == 0


async def test_a_broken_stream_is_opened_again_item_57(stage: Stage) -> None:
    end = "select pg_terminate_backend(pid) from pg_stat_replication"
    async with stage.connection() as connection:
        with stage.replicate() as process:
            for number in range(3):
                await stage.until_streaming()
                await connection.execute(end)
                await insert(stage, number, number)
            assert len(await stage.settle()) == 3
            assert await stop(process) == 0


async def test_a_stream_that_cannot_be_opened_leaks_neither_connections_nor_locks_item_58(stage: Stage) -> None:
    notes, counts = Notes(), []
    async with (
        stage.connection() as connection,
        open_replication(stage.settings(), notes) as replication,
    ):
        await connection.execute("create publication sessions_to_clickhouse_v1_publication for table run")
        async with replication.running():
            with anyio.fail_after(PATIENCE_SECONDS):
                while len(failures := [e for e in notes.events if isinstance(e, ReplicationStreamClosed)]) < 10:
                    counts.append((await connection.fetchval(LEADERS), await connection.fetchval(CONNECTIONS)))
                    await anyio.sleep(0.01)
                await connection.execute("drop publication sessions_to_clickhouse_v1_publication")
                while not replication.replicator.health.is_streaming:
                    await anyio.sleep(0.01)
        assert await connection.fetchval(LEADERS) == 0
    assert all("ALTER PUBLICATION" in str(event.error) for event in failures), "it says how to mend it"
    assert max(leaders for leaders, _ in counts) == 1
    assert max(connections for _, connections in counts) <= 8


async def test_a_stop_while_it_waits_for_its_turn_leaves_no_leader_item_59(stage: Stage) -> None:
    with stage.replicate() as leader:
        await stage.until_streaming()
        with stage.replicate() as second:
            assert await word_of(second) == "standby"
            assert await stop(second) == 0
        assert await word_of(leader) == "leader"
    async with stage.connection() as connection:
        assert await connection.fetchval(LEADERS) == 0


@pytest.mark.kill
async def test_nothing_is_missing_stale_or_resurrected_after_kills(stage: Stage) -> None:
    """Three rounds; ``python -m harness.replication --rounds 20`` is the long form."""
    print(await kill_rounds(stage, ROUNDS, seed=int.from_bytes(os.urandom(4))))


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"SESSIONS_PROFILE": "embedded", "SESSIONS_DATABASE_URL": ""}, "choose postgres or scale"),
        ({"SESSIONS_CLICKHOUSE_URL": ""}, "SESSION_REPLICATION_CLICKHOUSE_URL or SESSIONS_CLICKHOUSE_URL"),
        ({"SESSION_REPLICATION_FLUSH_BATCH_SIZE": "many"}, "SESSION_REPLICATION_FLUSH_BATCH_SIZE"),
        ({"SESSION_REPLICATION_SLOT_NAME": "No!"}, "slot"),
    ],
)
def test_what_is_missing_or_wrong_is_one_sentence(systems: Stage, variables: dict[str, str], words: str) -> None:
    done = replicate(systems, variables)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def replicate(stage: Stage, variables: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sessions_server", "replicate"],
        env={**os.environ, **stage.variables(), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
