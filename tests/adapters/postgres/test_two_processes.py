"""What one process commits, another one learns: at once by a notification, in about a second without one."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
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
    clock,
    open_database,
)
from sessions_adapters.postgres.connecting import Connection
from sessions_adapters.postgres.followers import WatchingFollowers
from sessions_adapters.postgres.log_writer import Append, LogWriter
from sessions_adapters.postgres.trimmer import Trimmer
from sessions_core.domain.channel import Appended, Channel, Record
from sessions_core.domain.guard import SEALED, UNTOUCHED
from sessions_core.domain.waitpoint import Completion, WaitpointStatus
from sessions_core.errors import GuardMismatchError, TailMismatchError

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


async def test_a_mistake_in_the_background_is_told_at_once_and_the_work_goes_on(
    url: str,
    other_log: PostgresChannelLog,
    channel: Channel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    look, mistakes = WatchingFollowers.look, [RuntimeError("a mistake")]

    async def look_wrongly(self: WatchingFollowers, connection: Connection, *, anew: bool) -> None:
        if mistakes:
            raise mistakes.pop()
        await look(self, connection, anew=anew)

    async with open_database(PostgresConfig(url=url, poll_interval=timedelta(milliseconds=50))) as db:
        monkeypatch.setattr(WatchingFollowers, "look", look_wrongly)
        with anyio.fail_after(SOON):
            while not caplog.messages:
                await anyio.sleep(0.01)
            assert caplog.messages == ["Listener.run failed; it is started again"]
            async with PostgresChannelLog(db).follow(channel, 0) as batches:
                await other_log.append(channel, [record("heard")], guard=UNTOUCHED)
                assert (await anext(batches)).records[0].body == b"heard"


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


async def test_no_append_of_another_process_slips_in_before_the_first_that_asks_for_the_tail(
    log: PostgresChannelLog, other_log: PostgresChannelLog, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel has no row yet that could be locked; the other one comes as soon as the tail has been looked at."""
    send = LogWriter._send
    others = [partial(other_log.append, channel, [record("other")], guard=UNTOUCHED)]

    async def send_later(self: LogWriter, connection: Connection, group: Sequence[Append]) -> list[asyncpg.Record]:
        if group[0].if_tail is not None and others:
            with anyio.move_on_after(0.2):  # it waits for us, if it has to
                await others.pop()()
        return await send(self, connection, group)

    monkeypatch.setattr(LogWriter, "_send", send_later)
    assert await log.append(channel, [record("mine")], guard=UNTOUCHED, if_tail=0) == [Appended(0)]
    assert not others
    with pytest.raises(TailMismatchError):
        await log.append(channel, [record("mine")], guard=UNTOUCHED, if_tail=0)


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
