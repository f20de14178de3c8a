"""What one process commits, another one learns: at once by a notification, in about a second without one."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial

import anyio
import asyncpg
import pytest
from anyio.lowlevel import checkpoint

from contract.makers import ENV_A, Call, at_once, make_channel, make_waitpoint, record
from sessions_adapters.postgres import (
    PostgresChannelLog,
    PostgresConfig,
    PostgresDatabase,
    PostgresWaitpointStore,
    PostgresWaitRegistry,
    clock,
    open_database,
)
from sessions_adapters.postgres.trimmer import Trimmer
from sessions_core.domain.channel import Channel, Record
from sessions_core.domain.guard import SEALED, UNTOUCHED
from sessions_core.domain.ids import WaitpointId
from sessions_core.domain.waitpoint import Completion, WaitpointStatus
from sessions_core.errors import GuardMismatchError

pytestmark = pytest.mark.needs_postgres

DONE = Completion(WaitpointStatus.COMPLETED, "hello", 7)
DAY = timedelta(days=1)
SOON = 10.0
END_BACKENDS = """
    select count(pg_terminate_backend(pid)) from pg_stat_activity
    where datname = current_database() and application_name = 'sessions'
"""
MUTE = timedelta(hours=1)


async def collect(log: PostgresChannelLog, channel: Channel, count: int) -> list[Record]:
    found: list[Record] = []
    with anyio.fail_after(SOON):
        async with log.follow(channel, 0) as batches:
            while len(found) < count:
                found += (await anext(batches)).records
    return found


async def write(log: PostgresChannelLog, channel: Channel, name: str, count: int) -> None:
    for number in range(count):
        await log.append(channel, [record(f"{name} {number}")], guard=UNTOUCHED)
        for _ in range(number % 5):
            await checkpoint()


async def test_a_follower_sees_the_appends_of_both_processes_in_order_without_gap_or_repeat(
    log: PostgresChannelLog, other_log: PostgresChannelLog, channel: Channel
) -> None:
    seen: list[list[Record]] = []

    async def follow(where: PostgresChannelLog) -> None:
        seen.append(await collect(where, channel, 200))

    followers = [partial(follow, where) for where in (log, other_log, log)]
    writers = [partial(write, where, channel, f"{n}", 50) for n, where in enumerate([log, other_log] * 2)]
    await at_once([*followers, *writers])
    everything = list((await log.read(channel, 0, 1000)).records)
    assert [found.seq for found in everything] == list(range(200))
    assert seen == [everything] * 3


async def test_a_follower_elsewhere_is_woken_long_before_the_slow_look(url: str, channel: Channel) -> None:
    config = PostgresConfig(url=url, poll_interval=timedelta(hours=1))
    async with open_database(config) as db, open_database(config) as other_db:
        log, other_log = PostgresChannelLog(db), PostgresChannelLog(other_db)
        async with other_log.follow(channel, 0) as batches:
            for number in range(20):
                await log.append(channel, [record(f"{number}")], guard=UNTOUCHED)
                with anyio.fail_after(SOON):
                    batch = await anext(batches)
                assert batch.records[-1].body == f"{number}".encode()


async def test_a_notification_that_is_never_sent_is_made_up_for(url: str, channel: Channel) -> None:
    config = PostgresConfig(url=url, poll_interval=timedelta(milliseconds=100))
    mute = PostgresConfig(url=url, notify_interval=MUTE)
    async with open_database(config) as db, open_database(mute) as silent:
        log, silent_log = PostgresChannelLog(db), PostgresChannelLog(silent)
        async with log.follow(channel, 0) as batches:
            await silent_log.append(channel, [record("told")], guard=UNTOUCHED)  # what comes after a pause is told
            with anyio.fail_after(SOON):
                await anext(batches)
                await silent_log.append(channel, [record("not told")], guard=UNTOUCHED)
                assert (await anext(batches)).records[0].body == b"not told"


async def test_followers_and_waiters_outlive_the_loss_of_all_connections(
    db: PostgresDatabase,
    other_db: PostgresDatabase,
    admin: asyncpg.Connection[asyncpg.Record],
    channel: Channel,
) -> None:
    log, other_log = PostgresChannelLog(db), PostgresChannelLog(other_db)
    store, other_store = PostgresWaitpointStore(db), PostgresWaitpointStore(other_db)
    waitpoint = make_waitpoint()
    await store.create(waitpoint)
    seen: list[Record] = []

    async def follow() -> None:
        seen.extend(await collect(log, channel, 1))

    async def wait() -> None:
        assert not (await store.wait(ENV_A.id, waitpoint.id)).is_waiting

    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            tasks.start_soon(wait)
            while not db.waiters._by_id or db.followers._by_channel == {}:
                await checkpoint()
            assert await admin.fetchval(END_BACKENDS) >= 2
            await other_log.append(channel, [record("after")], guard=UNTOUCHED)
            assert await other_store.complete(waitpoint.id, DONE)
    assert [found.body for found in seen] == [b"after"]


async def test_who_waits_is_woken_by_a_completion_elsewhere(db: PostgresDatabase, other_db: PostgresDatabase) -> None:
    store, other_store = PostgresWaitpointStore(db), PostgresWaitpointStore(other_db)
    for number in range(10):
        waitpoint = make_waitpoint(f"{number}")
        await store.create(waitpoint)
        with anyio.fail_after(SOON):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.wait, ENV_A.id, waitpoint.id)
                for _ in range(number):
                    await checkpoint()
                assert await other_store.complete(waitpoint.id, DONE)


async def test_a_wait_registered_elsewhere_is_drained_here(db: PostgresDatabase, other_db: PostgresDatabase) -> None:
    registry, other = PostgresWaitRegistry(db), PostgresWaitRegistry(other_db)
    channel, waitpoint = make_channel(), make_waitpoint()
    await other.drain(channel)
    await registry.register(channel, waitpoint.id, DAY)
    drained: list[str] = []
    with anyio.fail_after(SOON):
        while not drained:
            drained += await other.drain(channel)
            await checkpoint()
    assert drained == [waitpoint.id]
    assert list(await registry.drain(channel)) == []


async def test_a_process_that_starts_later_knows_who_waits(config: PostgresConfig, db: PostgresDatabase) -> None:
    channel, waitpoint = make_channel(), make_waitpoint()
    await PostgresWaitRegistry(db).register(channel, waitpoint.id, DAY)
    async with open_database(config) as later:
        assert list(await PostgresWaitRegistry(later).drain(channel)) == [waitpoint.id]


async def test_a_channel_that_nobody_waits_on_is_not_asked_about(db: PostgresDatabase) -> None:
    registry, drained = PostgresWaitRegistry(db), make_channel("drained")
    with anyio.fail_after(SOON):
        while db.waits.may_have(b"any"):
            await checkpoint()
    await registry.register(drained, make_waitpoint().id, DAY)
    assert list(await registry.drain(drained)) == [make_waitpoint().id]
    held = [await db.pool.acquire() for _ in range(db.config.connections)]
    for channel in (make_channel(), drained):
        assert list(await registry.drain(channel)) == [], "it would have needed a connection"
    for connection in held:
        await db.pool.release(connection)


async def test_who_waits_no_more_is_forgotten_unless_somebody_waits_longer_on_that_channel(
    db: PostgresDatabase, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    registry, over, kept = PostgresWaitRegistry(db), make_channel("over"), make_channel("kept")
    first, second = make_waitpoint().id, WaitpointId("waitpoint_second")
    for channel, waitpoint, keep in ((over, first, -DAY), (kept, first, -DAY), (kept, second, DAY)):
        await registry.register(channel, waitpoint, keep)
    db.trimmer.wake()
    with anyio.fail_after(SOON):
        while await admin.fetchval("select count(*) from sessions.wait_member") > 2:
            await checkpoint()
    assert set(await registry.drain(kept)) == {first, second}
    assert list(await registry.drain(over)) == []


async def test_the_clock_follows_the_servers(db: PostgresDatabase, admin: asyncpg.Connection[asyncpg.Record]) -> None:
    server_time = await admin.fetchval("select clock_timestamp()")
    assert abs((db.clock.now() - server_time).total_seconds()) < 5


@pytest.mark.parametrize("more", [0, 1])
async def test_one_part_id_in_two_processes_is_one_record(
    log: PostgresChannelLog, other_log: PostgresChannelLog, channel: Channel, more: int
) -> None:
    for number in range(40):
        batches = [[record(f"{where} {number}", f"{number}"), *[record("more")] * more] for where in "ab"]
        first, second = await at_once(
            [
                partial(where.append, channel, batch, guard=UNTOUCHED)
                for where, batch in zip((log, other_log), batches, strict=True)
            ]
        )
        assert first[0].seq == second[0].seq
        assert {first[0].is_new, second[0].is_new} == {True, False}
    assert (await log.tail(channel)).next_seq == 40 * (1 + 2 * more)


async def test_no_append_of_another_process_slips_in_behind_a_seal(
    log: PostgresChannelLog, other_log: PostgresChannelLog
) -> None:
    async def write(channel: Channel, acknowledged: list[int]) -> None:
        with contextlib.suppress(GuardMismatchError):
            while True:
                acknowledged += [place.seq for place in await other_log.append(channel, [record()], guard=UNTOUCHED)]

    for number in range(20):
        channel, acknowledged = make_channel(f"{number}"), list[int]()

        async def seal(channel: Channel = channel, pause: int = number) -> int:
            await anyio.sleep(pause / 5000)
            return (await log.set_guard(channel, SEALED, expect=UNTOUCHED)).tail

        calls: list[Call] = [seal, *[partial(write, channel, acknowledged)] * 4]
        sealed_at, *_ = await at_once(calls)
        assert sorted(acknowledged) == list(range(sealed_at))
        assert (await log.tail(channel)).next_seq == sealed_at


async def test_what_one_process_trims_another_one_may_delete(
    config: PostgresConfig, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_database(config) as db:
        log = PostgresChannelLog(db)
        await log.append(channel, [record(f"{n}") for n in range(1200)], guard=UNTOUCHED)
        monkeypatch.setattr(Trimmer, "wake", lambda _: None)  # it dies before it has deleted anything
        await log.trim(channel, 1100, guard=UNTOUCHED)
        assert (await log.read(channel, 0, 5000)).records[0].seq == 1100
    async with open_database(config) as later:
        with anyio.fail_after(SOON):
            while len(await later.fetch("select 1 from record")) != 101:
                await anyio.sleep(0.01)
        assert (await PostgresChannelLog(later).read(channel, 0, 5000)).records[0].seq == 1100


async def test_a_machine_whose_clock_is_off_knows_the_time_from_its_first_moment_on(
    config: PostgresConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Early(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(minutes=5)

    monkeypatch.setattr(clock, "datetime", Early)
    async with open_database(config) as db:
        assert abs((db.clock.now() - datetime.now(UTC)).total_seconds()) < 60
