"""Connections that break in the middle of a transaction, a claim, an append, a reading."""

from __future__ import annotations

import asyncio
from functools import partial

import anyio
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
from harness.postgres_trouble import END_ALL, END_BUSY, SOON, Admin, check_words, failure_of, until_somebody_waits
from sessions_adapters.fernet import FernetCipher
from sessions_adapters.postgres import (
    PostgresChannelLog,
    PostgresConfig,
    PostgresDatabase,
    PostgresEnvironmentStore,
    PostgresRunStore,
    PostgresSessionStore,
    open_database,
)
from sessions_adapters.postgres.failures import UNKNOWN
from sessions_core.domain.channel import Channel
from sessions_core.domain.claim import Claim
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.errors import ChannelUnavailableError

pytestmark = pytest.mark.needs_postgres


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
