"""A pool that is empty, statements that take too long, channels that somebody has locked."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

import anyio
import asyncpg
import pytest

from contract.makers import ENV_A, Call, at_once, initial, make_channel, make_session, record
from harness.postgres_trouble import SOON, Admin, check_words, failure_of
from sessions_adapters.postgres import PostgresChannelLog, PostgresConfig, PostgresSessionStore, open_database
from sessions_adapters.postgres.failures import UNDONE, UNKNOWN
from sessions_core.domain.channel import Channel
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.errors import ChannelUnavailableError, StoreUnavailableError

pytestmark = pytest.mark.needs_postgres


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
