"""Connections that break, a pool that is empty, statements that take too long, callers that go away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias

import anyio
import asyncpg
import pytest
from anyio.lowlevel import checkpoint

from contract.makers import (
    ENV_A,
    Call,
    at_once,
    following,
    initial,
    make_channel,
    make_environment,
    make_session,
    record,
)
from sessions_adapters.fernet import FernetCipher
from sessions_adapters.postgres import (
    PostgresChannelLog,
    PostgresConfig,
    PostgresDatabase,
    PostgresEnvironmentStore,
    PostgresRunStore,
    PostgresSessionStore,
    database,
    open_database,
)
from sessions_adapters.postgres.failures import UNDONE, UNKNOWN
from sessions_core.domain.channel import Channel
from sessions_core.domain.claim import Claim
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.errors import ChannelUnavailableError, StoreUnavailableError, UnavailableError

pytestmark = pytest.mark.needs_postgres

Admin: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
SOON = 20.0
BUSY = """
    select pid from pg_stat_activity
    where datname = current_database() and application_name = 'sessions' and state = 'active' and wait_event_type = 'Lock'
"""
END_BUSY = BUSY.replace("select pid", "select pg_terminate_backend(pid)")
IN_TRANSACTION = """
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'sessions' and state like 'idle in transaction%'
"""
END_ALL = """
    select count(pg_terminate_backend(pid)) from pg_stat_activity
    where datname = current_database() and application_name = 'sessions'
"""


async def until_somebody_waits(admin: Admin, count: int = 1) -> None:
    with anyio.fail_after(SOON):
        while len(await admin.fetch(BUSY)) < count:
            await admin.execute("select pg_stat_clear_snapshot()")


async def failure_of(call: Callable[[], Awaitable[object]]) -> UnavailableError:
    with pytest.raises(UnavailableError) as caught:
        await call()
    return caught.value


def check_words(error: UnavailableError) -> None:
    """The caller's message is ours; the driver's exception is the cause."""
    assert "try again" in error.message
    assert "terminat" not in error.message
    assert error.__cause__ is not None


# --- connections cut ---


async def test_an_append_that_is_cut_off_fails_and_is_safe_to_repeat(
    log: PostgresChannelLog, admin: Admin, channel: Channel
) -> None:
    await log.append(channel, [record("first", "one")], guard=UNTOUCHED)
    append = partial(log.append, channel, [record("second", "two")], guard=UNTOUCHED)
    async with anyio.create_task_group() as tasks:
        async with admin.transaction():
            await admin.execute("select 1 from channel for update")
            failing = asyncio.ensure_future(failure_of(append))
            await until_somebody_waits(admin)
            await admin.execute(END_BUSY)
            error = await failing
        tasks.cancel_scope.cancel()
    assert isinstance(error, ChannelUnavailableError)
    assert error.__notes__ == [UNKNOWN]
    check_words(error)
    with anyio.fail_after(SOON):
        (place,) = await append()
    assert place.seq == 1
    assert [found.body for found in (await log.read(channel, 0, 10)).records] == [b"first", b"second"]


async def test_a_transaction_that_is_cut_off_leaves_nothing_behind(config: PostgresConfig, admin: Admin) -> None:
    cipher = FernetCipher(FernetCipher.generate_key())
    async with open_database(config, cipher=cipher) as db:
        store = PostgresEnvironmentStore(db)
        await store.create(ENV_A, "key of a")
        async with admin.transaction():
            await admin.execute("lock table access_key in access exclusive mode")
            failing = asyncio.ensure_future(failure_of(partial(store.create, make_environment("env_b"), "key of b")))
            await until_somebody_waits(admin)
            await admin.execute(END_BUSY)
            error = await failing
        check_words(error)
        assert await store.list_all() == [ENV_A]
        await store.create(make_environment("env_b"), "key of b")


async def test_a_claim_that_is_cut_off_is_made_or_not_but_never_half(db: PostgresDatabase, admin: Admin) -> None:
    store, runs = PostgresSessionStore(db), PostgresRunStore(db)
    session = make_session()
    session = (await store.create(session, initial(session))).session
    claim = partial(store.claim_run, following(session), expected_version=1)
    async with admin.transaction():
        await admin.execute("select 1 from session for update")
        failing = asyncio.ensure_future(failure_of(claim))
        await until_somebody_waits(admin)
        await admin.execute(END_BUSY)
        check_words(await failing)
    found = await store.find(ENV_A.id, session.id)
    assert found is not None
    assert found.current_run_version == 1
    assert await runs.find(ENV_A.id, following(session).id) is None
    assert await claim() is Claim.WON


async def test_a_reading_whose_connection_is_cut_goes_on(
    log: PostgresChannelLog, admin: Admin, channel: Channel
) -> None:
    with anyio.fail_after(SOON):
        async with log.follow(channel, 0) as batches:
            for number in range(5):
                await admin.execute(END_ALL)
                while True:
                    try:
                        await log.append(channel, [record(f"{number}", f"{number}")], guard=UNTOUCHED)
                        break
                    except ChannelUnavailableError:
                        await checkpoint()
                assert (await anext(batches)).records[-1].body == f"{number}".encode()


async def test_writers_whose_connections_are_cut_again_and_again_lose_and_double_nothing(
    db: PostgresDatabase, other_db: PostgresDatabase, admin: Admin
) -> None:
    channels = [make_channel(f"{n}") for n in range(6)]
    acknowledged: dict[Channel, dict[str, int]] = {channel: {} for channel in channels}

    async def write(writer: int) -> None:
        log = PostgresChannelLog(db if writer % 2 else other_db)
        for number in range(25):
            channel, part = channels[(writer + number) % 6], f"{writer}.{number}"
            while part not in acknowledged[channel]:
                try:
                    (place,) = await log.append(channel, [record(part, part)], guard=UNTOUCHED)
                    acknowledged[channel][part] = place.seq
                except ChannelUnavailableError:
                    await anyio.sleep(0.002)

    async def cut() -> None:
        for _ in range(20):
            await admin.execute(END_ALL)
            await anyio.sleep(0.01)

    calls: list[Call] = [cut, *(partial(write, writer) for writer in range(16))]
    await at_once(calls)
    for channel, parts in acknowledged.items():
        stored = (await PostgresChannelLog(db).read(channel, 0, 1000)).records
        assert {found.body.decode(): found.seq for found in stored} == parts
        assert len(stored) == len(parts)


# --- too much, too long ---


async def test_a_pool_that_stays_empty_is_an_error_that_says_nothing_was_sent(url: str) -> None:
    config = PostgresConfig(url=url, connections=2, connect_timeout=timedelta(milliseconds=200))
    async with open_database(config) as db:
        held = [await db.pool.acquire() for _ in range(2)]
        store = PostgresSessionStore(db)
        errors = await at_once([partial(failure_of, store.check) for _ in range(10)])
        for connection in held:
            await db.pool.release(connection)
        for error in errors:
            assert error.__notes__ == [UNDONE]
            check_words(error)
        await store.check()


async def test_more_callers_than_connections_wait_for_their_turn(url: str) -> None:
    async with open_database(PostgresConfig(url=url, connections=2)) as db:
        store = PostgresSessionStore(db)
        await at_once([store.check] * 200)
        assert db.pool.get_size() <= 2


async def test_a_statement_that_takes_too_long_is_stopped(url: str, admin: Admin, channel: Channel) -> None:
    config = PostgresConfig(url=url, statement_timeout=timedelta(milliseconds=200))
    async with open_database(config) as db:
        log, store = PostgresChannelLog(db), PostgresSessionStore(db)
        await log.append(channel, [record("first")], guard=UNTOUCHED)
        session = make_session()
        await store.create(session, initial(session))
        async with admin.transaction():
            await admin.execute("select 1 from channel for update")
            await admin.execute("select 1 from session for update")
            append = partial(log.append, channel, [record("second")], guard=UNTOUCHED)
            close = partial(store.close, ENV_A.id, session.id, None)
            calls: list[Call] = [partial(failure_of, append), partial(failure_of, close)]
            errors = await at_once(calls)
        assert [type(error) for error in errors] == [ChannelUnavailableError, StoreUnavailableError]
        for error in errors:
            assert error.__notes__ == [UNDONE]
            check_words(error)
        assert (await log.tail(channel)).next_seq == 1
        assert [place.seq for place in await append()] == [1]


# --- channels that somebody has locked ---

LOCK = "select 1 from channel where key = $1 for update"


async def test_a_channel_that_is_locked_holds_the_others_up_for_one_lock_timeout_and_fails_none_of_them(
    url: str, admin: Admin
) -> None:
    config = PostgresConfig(url=url, lock_timeout=timedelta(milliseconds=200), statement_timeout=timedelta(seconds=30))
    async with open_database(config) as db:
        log, locked = PostgresChannelLog(db), make_channel("locked")
        channels = [make_channel(f"{number}") for number in range(20)]
        for channel in (locked, *channels):
            await log.append(channel, [record("first")], guard=UNTOUCHED)
        async with admin.transaction():
            await admin.execute(LOCK, "locked")
            refused = [asyncio.ensure_future(failure_of(partial(put_one, log, locked))) for _ in range(20)]
            stored = [asyncio.ensure_future(put_one(log, channel)) for channel in channels]
            with anyio.fail_after(SOON):
                assert await asyncio.gather(*stored) == [1] * 20
                errors = await asyncio.gather(*refused)
        for error in errors:
            assert isinstance(error.__cause__, asyncpg.LockNotAvailableError)
            assert error.__notes__ == [UNDONE]
            check_words(error)
        assert len(set(map(id, errors))) == 20, "each caller gets an exception of its own"
        assert await put_one(log, locked) == 1


async def test_the_statements_of_a_group_that_is_stopped_are_not_repeated_one_by_one(url: str, admin: Admin) -> None:
    async with open_database(PostgresConfig(url=url, statement_timeout=timedelta(seconds=1))) as db:
        log, calls = PostgresChannelLog(db), list[Call]()
        for number in range(100):
            await put_one(log, make_channel(f"{number}"))
            calls.append(partial(failure_of, partial(put_one, log, make_channel(f"{number}"))))
        async with admin.transaction():
            await admin.execute("select 1 from channel for update")
            with anyio.fail_after(SOON):  # one by one they would take 100 s
                errors = await at_once(calls)
        assert {tuple(error.__notes__) for error in errors} == {(UNDONE,)}


async def test_an_append_that_has_waited_too_long_for_its_turn_is_refused_and_never_stored(
    url: str, admin: Admin, channel: Channel
) -> None:
    config = PostgresConfig(url=url, statement_timeout=timedelta(seconds=1), group_size=1)
    async with open_database(config) as db:
        log = PostgresChannelLog(db)
        await put_one(log, channel)
        async with admin.transaction():
            await admin.execute("select 1 from channel for update")
            calls = [partial(failure_of, partial(put_one, log, channel)) for _ in range(100)]
            with anyio.fail_after(SOON):
                errors = await at_once(calls)
        assert {tuple(error.__notes__) for error in errors} == {(UNDONE,)}
        assert sum(isinstance(error.__cause__, asyncpg.InterfaceError) for error in errors) > 90
        assert await put_one(log, channel) == 1


@pytest.mark.parametrize(("if_tail", "note"), [(None, UNKNOWN), (1, UNDONE)])
async def test_an_append_whose_server_has_gone_silent_is_answered_at_its_deadline(
    url: str, admin: Admin, channel: Channel, if_tail: int | None, note: str
) -> None:
    second = timedelta(seconds=1)
    async with open_database(PostgresConfig(url=url, connect_timeout=second, statement_timeout=second)) as db:
        log = PostgresChannelLog(db)
        await put_one(log, channel)
        assert db.log._connection is not None
        await db.log._connection.execute("set statement_timeout = 0; set lock_timeout = 0")  # it stops nothing any more
        async with admin.transaction():
            await admin.execute("select 1 from channel for update")
            with anyio.fail_after(SOON):
                error = await failure_of(partial(log.append, channel, [record()], guard=UNTOUCHED, if_tail=if_tail))
        assert not isinstance(error.__cause__, TimeoutError), "the driver's own patience ends later"
        assert error.__notes__ == [note]
        check_words(error)
        assert await put_one(log, channel) in ((1,) if note == UNDONE else (1, 2))


async def put_one(log: PostgresChannelLog, channel: Channel) -> int:
    (place,) = await log.append(channel, [record()], guard=UNTOUCHED)
    return place.seq


# --- callers that go away ---


async def test_a_storm_of_cancellations_leaves_no_connection_and_no_transaction_behind(
    db: PostgresDatabase, admin: Admin
) -> None:
    db.cipher = FernetCipher(FernetCipher.generate_key())
    store, log, environments = PostgresSessionStore(db), PostgresChannelLog(db), PostgresEnvironmentStore(db)
    session = make_session()
    session = (await store.create(session, initial(session))).session
    calls: list[Callable[[int], Awaitable[object]]] = [
        lambda n: environments.create(make_environment(f"env_{n}"), f"key {n}"),
        lambda _: store.find(ENV_A.id, session.id),
        lambda n: log.append(make_channel(f"{n % 5}"), [record("x")], guard=UNTOUCHED),
        lambda n: log.read(make_channel(f"{n % 5}"), 0, 10),
        lambda _: store.check(),
    ]

    async def go_away(number: int) -> None:
        with anyio.move_on_after(0.0003 * (number % 11)):
            await calls[number % len(calls)](number)

    for _ in range(4):
        await at_once([partial(go_away, number) for number in range(100)])
    with anyio.fail_after(SOON):
        while db.pool.get_idle_size() < db.pool.get_size():
            await checkpoint()
        while await admin.fetchval(IN_TRANSACTION):
            await checkpoint()
    await at_once([store.check] * 30)


async def test_a_cancelled_transaction_is_rolled_back(db: PostgresDatabase, admin: Admin) -> None:
    with anyio.CancelScope() as scope:
        async with db.transaction() as connection:
            await connection.execute("insert into used_token values ('env', 'hash', now())")
            scope.cancel()
            await anyio.sleep_forever()
    assert await admin.fetchval("select count(*) from used_token") == 0
    with anyio.fail_after(SOON):
        while await admin.fetchval(IN_TRANSACTION):
            await checkpoint()


async def test_a_cancelled_append_does_not_hold_up_the_others(log: PostgresChannelLog, channel: Channel) -> None:
    async def give_up() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(log.append, channel, [record("gone")], guard=UNTOUCHED))
                await checkpoint()
                scope.cancel()

    async def stay(number: int) -> None:
        await log.append(channel, [record(f"{number}")], guard=UNTOUCHED)

    await at_once([call for number in range(50) for call in (give_up, partial(stay, number))])
    bodies = [found.body for found in (await log.read(channel, 0, 1000)).records]
    assert {f"{number}".encode() for number in range(50)} <= set(bodies)


# --- many writers ---


async def test_64_writers_in_4_processes_on_overlapping_channels_do_not_block_each_other(
    config: PostgresConfig, admin: Admin
) -> None:
    channels = [make_channel(f"{n}") for n in range(20)]
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    before = await admin.fetchval(deadlocks)
    async with AsyncExitStack() as stack:
        logs = [PostgresChannelLog(await stack.enter_async_context(open_database(config))) for _ in range(4)]

        async def write(writer: int) -> None:
            for number in range(30):
                channel = channels[(writer * 7 + number * 3) % 20]
                batch = [record("a", f"{writer}.{number}"), record("b")]
                await logs[writer % 4].append(channel, batch, guard=UNTOUCHED)

        await at_once([partial(write, writer) for writer in range(64)])
        tails = [await logs[0].tail(channel) for channel in channels]
    assert sum(tail.next_seq for tail in tails) == 64 * 30 * 2
    assert await admin.fetchval(deadlocks) == before


async def test_of_two_beginnings_that_wait_for_the_session_one_begins(db: PostgresDatabase, admin: Admin) -> None:
    store, runs = PostgresSessionStore(db), PostgresRunStore(db)
    session = make_session()
    session = (await store.create(session, initial(session))).session
    async with admin.transaction():
        await admin.execute("select 1 from session for update")
        begin = partial(runs.begin, initial(session).id, 1)
        beginning = [asyncio.ensure_future(begin()) for _ in range(2)]
        await until_somebody_waits(admin, 2)
    begun = [run for run in await asyncio.gather(*beginning) if run is not None]
    assert [run.epoch for run in begun] == [1]
    found = await store.find(ENV_A.id, session.id)
    assert found is not None
    assert found.epoch == 1


async def test_what_fails_in_a_group_fails_alone(log: PostgresChannelLog) -> None:
    wrong = record()
    object.__setattr__(wrong, "body", "no bytes")
    good = [partial(log.append, make_channel(f"{n}"), [record("x")], guard=UNTOUCHED) for n in range(5)]
    bad = partial(failure_of, partial(log.append, make_channel("bad"), [wrong], guard=UNTOUCHED))
    calls: list[Call] = [*good, bad, *good]
    answers: list[Any] = await at_once(calls)
    assert isinstance(answers[5], ChannelUnavailableError)
    assert [answer[0].seq for answer in (*answers[:5], *answers[6:]) if isinstance(answer, list)] == [0] * 5 + [1] * 5


async def test_what_takes_its_cancellation_for_a_time_out_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver does that where it gives a connection back that does not answer."""
    monkeypatch.setattr(database, "_PAUSE_SECONDS", 0.01)
    swallowed = 0

    async def work() -> None:
        nonlocal swallowed
        while swallowed < 3:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                swallowed += 1

    working = asyncio.create_task(work())
    await checkpoint()
    with anyio.fail_after(SOON):
        await database._end([working])
    assert working.done()
