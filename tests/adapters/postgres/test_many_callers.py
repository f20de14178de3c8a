"""Callers that go away, and many at once: none holds up the others or leaves anything behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from contract.makers import ENV_A, Call, at_once, initial, make_channel, make_environment, make_session, record
from harness.postgres_trouble import IN_TRANSACTION, SOON, Admin, failure_of, until_somebody_waits
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
from sessions_core.domain.channel import Channel
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.errors import ChannelUnavailableError

pytestmark = pytest.mark.needs_postgres


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
