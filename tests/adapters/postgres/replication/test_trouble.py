"""Servers that die, connections that are cut: typed errors, nothing missing, and little again."""

from __future__ import annotations

import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING

import anyio
import asyncpg
import attrs
import pytest

from harness.feeding import Sink, ids_of, insert, next_batch
from harness.pgoutput import encode_data
from harness.postgres import PostgresProcess
from sessions_adapters.postgres import PostgresConfig, migrate
from sessions_adapters.postgres.replication import PostgresChangeFeed, ReplicationConfig
from sessions_adapters.postgres.replication.messages import Origin
from sessions_core.errors import IncompatibleStoreError, StoreUnavailableError

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

pytestmark = [pytest.mark.needs_postgres, pytest.mark.slow]

END_STREAMS = (
    "select pg_terminate_backend(pid) from pg_stat_replication where application_name = 'sessions-replication'"
)
PATIENCE_SECONDS = 30
STOPPING_SECONDS = 15
ROUNDS = 3


async def test_a_stream_whose_connection_is_cut_says_so_and_a_new_one_goes_on(
    feed: PostgresChangeFeed, admin: Connection, options: ReplicationConfig
) -> None:
    end = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1"
    async with feed.open() as stream:
        await insert(admin, 1)
        batch = await next_batch(stream)
        stream.acknowledge(batch.position)
        assert await admin.fetchval(end, options.slot)
        with pytest.raises(StoreUnavailableError):
            await next_batch(stream)
    await insert(admin, 2)
    async with feed.open() as stream:
        seen: list[str] = []
        while "session_2" not in seen:
            seen += ids_of([await next_batch(stream)])
    assert seen in (["session_2"], ["session_1", "session_2"]), "the acknowledgement may have been cut off"


async def test_what_cannot_be_read_ends_the_stream_for_good(feed: PostgresChangeFeed) -> None:
    async with feed.open() as stream:
        stream._frames.append(encode_data(Origin(1, "outside a transaction")))
        with pytest.raises(IncompatibleStoreError, match="newer release") as caught:
            await next_batch(stream)
        assert isinstance(caught.value.__cause__, ValueError)


async def test_a_disk_without_room_for_a_large_transaction_is_waited_for(
    config: PostgresConfig, options: ReplicationConfig, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = PostgresChangeFeed(config, attrs.evolve(options, held_bytes=20_000))
    with monkeypatch.context() as full_disk:
        full_disk.setattr(tempfile, "TemporaryFile", _open_without_room)
        async with feed.open() as stream:
            await insert(admin, 1, 500)
            with pytest.raises(StoreUnavailableError) as caught:
                await next_batch(stream)
            assert caught.value.__notes__ == ["ENOSPC"]
    async with feed.open() as stream:
        assert len(ids_of([await next_batch(stream)])) == 500


async def test_a_slow_consumer_keeps_its_stream_and_one_that_stays_away_too_long_is_told(
    server: PostgresProcess,
) -> None:
    server.stop()
    server.settings = {"wal_sender_timeout": "300ms", "max_slot_wal_keep_size": "1MB"}
    server.start()
    config = PostgresConfig(url=server.url)
    await migrate(config)
    feed = PostgresChangeFeed(config, ReplicationConfig(status_interval=timedelta(milliseconds=50)))
    admin = await asyncpg.connect(server.url)
    async with feed.open() as stream:
        await insert(admin, 1, 5000)
        began, seen = time.monotonic(), len((await next_batch(stream)).changes)
        while time.monotonic() - began < 1:
            await anyio.sleep(0.1)
        while seen < 5000:
            seen += len((await next_batch(stream)).changes)
    for number in range(3):
        await insert(admin, 6000 + number)
        await admin.execute("select pg_switch_wal()")
    await admin.execute("checkpoint")
    with pytest.raises(IncompatibleStoreError, match=r"fallen too far behind.*pg_drop_replication_slot.*backfill"):
        async with feed.open():
            pass
    await admin.close()


async def test_a_server_can_be_shut_down_although_not_all_is_acknowledged(server: PostgresProcess) -> None:
    config = PostgresConfig(url=server.url)
    await migrate(config)
    feed, began = PostgresChangeFeed(config), time.monotonic()
    async with anyio.create_task_group() as tasks, feed.open() as stream:
        await _write(server.url, 1, set())
        for _ in range(200):
            await next_batch(stream)
        tasks.start_soon(anyio.to_thread.run_sync, server.stop)
        with pytest.raises(StoreUnavailableError):
            await next_batch(stream)
    assert time.monotonic() - began < STOPPING_SECONDS
    server.start()
    async with feed.open() as stream:
        assert ids_of([await next_batch(stream)]) == ["session_200"]


@pytest.mark.kill
@pytest.mark.timeout(180)
async def test_nothing_is_missing_after_kills_of_the_server_and_cut_connections(server: PostgresProcess) -> None:
    config = PostgresConfig(url=server.url)
    await migrate(config)
    sink = Sink(PostgresChangeFeed(config, ReplicationConfig(status_interval=timedelta(milliseconds=10))))
    stored: set[str] = set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sink.run)
        with anyio.fail_after(PATIENCE_SECONDS):
            while not await _has_slot(server.url):
                await anyio.sleep(0.01)
        for number in range(ROUNDS):  # however long that takes
            await _write(server.url, number, stored)
            await _end_streams(server.url)
            await _write(server.url, ROUNDS + number, stored)
            server.kill()
            server.start()
        with anyio.fail_after(PATIENCE_SECONDS):
            while not stored <= sink.versions.keys():
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert stored == sink.versions.keys()
    print(f"{len(sink.again)} of {len(stored)} came again")


@pytest.mark.kill
async def test_a_server_without_logical_replication_is_refused_and_one_that_is_gone_unavailable(
    server: PostgresProcess,
) -> None:
    server.stop()
    server.settings = {"wal_level": "replica"}
    server.start()
    config = PostgresConfig(url=server.url)
    await migrate(config)
    feed = PostgresChangeFeed(config)
    with pytest.raises(IncompatibleStoreError, match="ALTER SYSTEM SET wal_level = 'logical'"):
        async with feed.open():
            pass
    server.stop()
    with pytest.raises(StoreUnavailableError):
        async with feed.open():
            pass


def _open_without_room(**_: str) -> IO[bytes]:
    return Path("/dev/full").open("w+b")


async def _has_slot(url: str) -> bool:
    connection = await asyncpg.connect(url)
    try:
        return bool(await connection.fetchval("select exists (select from pg_replication_slots where active)"))
    finally:
        await connection.close()


async def _end_streams(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(END_STREAMS)
    await connection.close()


async def _write(url: str, number: int, stored: set[str]) -> None:
    """Store sessions, one by one."""
    connection = await asyncpg.connect(url)
    for place in range(number * 200, number * 200 + 200):
        await insert(connection, place)
        stored.add(f"session_{place}")
    await connection.close()
