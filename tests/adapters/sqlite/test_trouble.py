"""Callers who leave, a disk that is full, a writer that dies, and the end."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from contextlib import closing
from datetime import timedelta

import anyio
import attrs
import pytest

from sessions_adapters.sqlite import (
    SqliteChannelLog,
    SqliteConfig,
    SqliteDatabase,
    SqliteLeaderLock,
    SqliteSessionStore,
    SqliteWaitpointStore,
    open_database,
    schema,
)
from sessions_adapters.sqlite.writer import Writer
from sessions_core.domain.channel import Appended, Channel, NewRecord
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.domain.ids import EnvironmentId, PartId, RunId, WaitpointId
from sessions_core.domain.waitpoint import Completion, Waitpoint, WaitpointStatus
from sessions_core.errors import ChannelUnavailableError, StoreUnavailableError
from sessions_core.testing import ManualClock


def record(number: int, size: int = 1) -> NewRecord:
    return NewRecord(b"x" * size, part_id=PartId(f"part {number}"))


def waitpoint(channel: Channel, clock: ManualClock) -> Waitpoint:
    return Waitpoint(id=WaitpointId("waitpoint_1"), run_id=RunId("run_1"), channel=channel, created_at=clock.now())


async def test_cancelled_appends_do_not_break_the_others(log: SqliteChannelLog, channel: Channel) -> None:
    tasks = [asyncio.create_task(log.append(channel, [record(i)], guard=UNTOUCHED)) for i in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    kept = await asyncio.gather(*tasks[1::2])
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks[::2])
    again = await asyncio.gather(*(log.append(channel, [record(i)], guard=UNTOUCHED) for i in range(200)))
    assert [answer.seq for [answer] in kept] == [again[i][0].seq for i in range(1, 200, 2)]
    assert sorted(answer.seq for [answer] in again) == list(range(200))


async def test_a_cancelled_completion_still_wakes_those_who_wait(
    db: SqliteDatabase, channel: Channel, clock: ManualClock
) -> None:
    store = SqliteWaitpointStore(db)
    await store.create(waitpoint(channel, clock))
    waiting = asyncio.create_task(store.wait(channel.environment_id, WaitpointId("waitpoint_1")))
    await asyncio.sleep(0.01)
    completing = asyncio.create_task(
        store.complete(WaitpointId("waitpoint_1"), Completion(WaitpointStatus.COMPLETED, {"a": 1}, 3))
    )
    await asyncio.sleep(0)
    completing.cancel()
    assert (await waiting).output == {"a": 1}


async def fill(log: SqliteChannelLog, channel: Channel) -> int:
    """Append until that fails; return how many records there are."""

    async def append_forever() -> None:
        for number in itertools.count():
            await log.append(channel, [record(number, 8000)], guard=UNTOUCHED)

    with pytest.raises(ChannelUnavailableError) as refusal:
        await append_forever()
    assert isinstance(refusal.value.__cause__, sqlite3.OperationalError)
    return (await log.tail(channel)).next_seq


async def test_a_full_disk_refuses_writes_but_not_reads_and_recovers(
    config: SqliteConfig, clock: ManualClock, channel: Channel
) -> None:
    async with open_database(attrs.evolve(config, max_pages=200), clock=clock) as db:
        log = SqliteChannelLog(db)
        stored = await fill(log, channel)
        assert stored > 10
        with pytest.raises(ChannelUnavailableError):
            await log.append(channel, [record(stored, 8000)], guard=UNTOUCHED)
        assert (await log.tail(channel)).next_seq == stored
        assert len((await log.read(channel, 0, 1000)).records) == stored
        small, large = await asyncio.gather(
            log.append(channel, [record(5, 8000)], guard=UNTOUCHED),
            log.append(channel, [record(stored, 800_000)], guard=UNTOUCHED),
            return_exceptions=True,
        )
        assert small == [Appended(5, is_new=False)], "what needs no room is answered"
        assert isinstance(large, ChannelUnavailableError)
        await db.read(lambda c: c.execute("select 1").fetchone())

        def enlarge(connection: sqlite3.Connection) -> object:
            return connection.execute("pragma max_page_count = 100000").fetchone()

        await db.write(enlarge)
        assert await log.append(channel, [record(stored, 8000)], guard=UNTOUCHED) == [Appended(stored)]


async def test_a_file_locked_by_somebody_else_is_an_unavailable_channel(
    config: SqliteConfig, clock: ManualClock, channel: Channel
) -> None:
    async with open_database(attrs.evolve(config, busy_timeout=timedelta(milliseconds=20)), clock=clock) as db:
        log = SqliteChannelLog(db)
        other = sqlite3.connect(config.path, isolation_level=None)
        other.execute("begin immediate")
        with pytest.raises(ChannelUnavailableError):
            await log.append(channel, [record(1)], guard=UNTOUCHED)
        with pytest.raises(StoreUnavailableError):
            await SqliteSessionStore(db).mark_sealed("session_x")  # type: ignore[arg-type]
        assert (await log.tail(channel)).next_seq == 0
        other.execute("commit")
        other.close()
        assert await log.append(channel, [record(1)], guard=UNTOUCHED) == [Appended(0)]


async def test_nobody_hangs_when_the_writer_dies(
    config: SqliteConfig, clock: ManualClock, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise SystemExit

    with anyio.fail_after(10):
        async with open_database(config, clock=clock) as db:
            log = SqliteChannelLog(db)
            waits = SqliteWaitpointStore(db)
            await waits.create(waitpoint(channel, clock))
            waiting = asyncio.create_task(waits.wait(EnvironmentId("env_1"), WaitpointId("waitpoint_1")))
            async with log.follow(channel, 0) as batches, SqliteLeaderLock(db).hold("sweep") as scope:
                following = asyncio.ensure_future(anext(batches))
                await asyncio.sleep(0.02)
                monkeypatch.setattr(Writer, "_decide", die)
                appends = [log.append(channel, [record(i)], guard=UNTOUCHED) for i in range(700)]
                answers = await asyncio.gather(*appends, return_exceptions=True)
                assert all(isinstance(answer, ChannelUnavailableError) for answer in answers)
                with scope:
                    await anyio.sleep_forever()
                assert scope.cancelled_caught
                with pytest.raises(ChannelUnavailableError):
                    await following
            with pytest.raises(StoreUnavailableError):
                await waiting
            with pytest.raises(ChannelUnavailableError):
                await log.append(channel, [record(1)], guard=UNTOUCHED)
            assert (await log.tail(channel)).next_seq == 0, "reading goes on"


async def test_a_check_fails_when_the_writer_has_died_and_the_log_says_so(
    config: SqliteConfig, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def die(*_: object) -> None:
        raise SystemExit

    async with open_database(config, clock=clock) as db:
        store = SqliteSessionStore(db)
        await store.check()
        monkeypatch.setattr(Writer, "_decide", die)
        for _ in range(2):
            with anyio.fail_after(5), pytest.raises(StoreUnavailableError):
                await store.check()
    assert [(record.name, record.levelname) for record in caplog.records] == [("sessions.sqlite", "CRITICAL")]


async def test_a_check_writes_and_so_fails_when_nothing_can_be_written(
    config: SqliteConfig, clock: ManualClock
) -> None:
    async with open_database(attrs.evolve(config, busy_timeout=timedelta(milliseconds=20)), clock=clock) as db:
        store = SqliteSessionStore(db)
        size = config.path.with_name("sessions.db-wal").stat().st_size
        await store.check()
        assert config.path.with_name("sessions.db-wal").stat().st_size > size
        with closing(sqlite3.connect(config.path, isolation_level=None)) as other:
            other.execute("begin immediate")
            with pytest.raises(StoreUnavailableError):
                await store.check()
        await store.check()
        assert await db.read(schema.stored_version) == schema.list_migrations()[-1].number


async def test_the_end_writes_what_was_taken_and_releases_everybody(
    config: SqliteConfig, clock: ManualClock, channel: Channel
) -> None:
    with anyio.fail_after(10):
        async with open_database(config, clock=clock) as db:
            log = SqliteChannelLog(db)
            waits = SqliteWaitpointStore(db)
            await waits.create(waitpoint(channel, clock))
            waiting = asyncio.create_task(waits.wait(EnvironmentId("env_1"), WaitpointId("waitpoint_1")))
            following = asyncio.create_task(_first(log, channel, 1000))
            await asyncio.sleep(0.02)
            appends = [asyncio.create_task(log.append(channel, [record(i)], guard=UNTOUCHED)) for i in range(100)]
            await asyncio.sleep(0)
        assert [answer.seq for [answer] in await asyncio.gather(*appends)] == list(range(100))
        with pytest.raises(StoreUnavailableError):
            await waiting
        with pytest.raises(ChannelUnavailableError):
            await following
        for call in (
            log.tail(channel),
            log.append(channel, [record(1)], guard=UNTOUCHED),
            log.trim(channel, 1, guard=UNTOUCHED),
        ):
            with pytest.raises(ChannelUnavailableError):
                await call
        assert not config.path.with_name("sessions.db-wal").exists(), "everything is in the database file"
    async with open_database(config, clock=clock) as db:
        assert (await SqliteChannelLog(db).tail(channel)).next_seq == 100


async def _first(log: SqliteChannelLog, channel: Channel, start: int) -> object:
    async with log.follow(channel, start) as batches:
        async for batch in batches:
            return batch
    raise AssertionError
