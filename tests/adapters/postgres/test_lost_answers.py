"""Statements that took effect although their answer was lost: who asks again is told what happened, and nothing happens twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import asyncpg
import attrs
import pytest

from contract.makers import ENV_A, following, initial, make_channel, make_session, record
from harness.postgres_proxy import PostgresProxy, open_postgres_proxy
from sessions_adapters.postgres import (
    PostgresChannelLog,
    PostgresConfig,
    PostgresDatabase,
    PostgresRunStore,
    PostgresSessionStore,
    open_database,
)
from sessions_adapters.postgres.failures import UNKNOWN
from sessions_core.domain.channel import Appended, Channel
from sessions_core.domain.claim import Claim
from sessions_core.domain.guard import UNTOUCHED, Guard
from sessions_core.domain.run import Holding
from sessions_core.domain.status import RunStatus
from sessions_core.errors import ChannelUnavailableError, UnavailableError

pytestmark = pytest.mark.needs_postgres

SOON = 20.0
Loses = Callable[..., Awaitable[None]]


@pytest.fixture
async def proxy(url: str) -> AsyncIterator[PostgresProxy]:
    async with open_postgres_proxy(url) as proxy:
        yield proxy


@pytest.fixture
async def far_db(proxy: PostgresProxy) -> AsyncIterator[PostgresDatabase]:
    """The database behind the proxy."""
    async with open_database(PostgresConfig(url=proxy.url)) as db:
        yield db


@pytest.fixture
def loses(proxy: PostgresProxy, admin: asyncpg.Connection[asyncpg.Record]) -> Loses:
    """Makes a call whose answer gets lost, and is cut off as soon as a question to the database says that it is done."""

    async def call_and_lose(call: Callable[[], Awaitable[object]], is_done: str) -> None:
        proxy.is_mute = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_fails, call)
            try:
                with anyio.fail_after(SOON):
                    while not await admin.fetchval(is_done):
                        await anyio.sleep(0.002)
            finally:
                proxy.cut()

    return call_and_lose


async def _fails(call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(UnavailableError) as caught:
        await call()
    assert caught.value.__notes__ == [UNKNOWN]
    assert caught.value.__cause__ is not None


async def patiently(call: Callable[[], Awaitable[Any]]) -> Any:
    """Make *call* until it is answered: connections that lie idle were cut, too."""
    with anyio.fail_after(SOON):
        while True:
            try:
                return await call()
            except UnavailableError:
                await anyio.sleep(0.002)


async def test_an_append_is_found_by_its_part_id(
    far_db: PostgresDatabase, loses: Loses, log: PostgresChannelLog, channel: Channel
) -> None:
    far = PostgresChannelLog(far_db)
    await far.append(channel, [record("first", "one")], guard=UNTOUCHED)
    append = partial(far.append, channel, [record("second", "two")], guard=UNTOUCHED)
    await loses(append, "select next_seq = 2 from channel")
    assert await patiently(append) == [Appended(1, is_new=False)]
    assert [found.body for found in (await log.read(channel, 0, 10)).records] == [b"first", b"second"]


async def test_a_guard_is_found_to_be_set(
    far_db: PostgresDatabase, loses: Loses, log: PostgresChannelLog, channel: Channel
) -> None:
    far, live = PostgresChannelLog(far_db), Guard.live(1)
    await far.append(channel, [record("first")], guard=UNTOUCHED)
    change = partial(far.set_guard, channel, live, expect=UNTOUCHED)
    await loses(change, "select guard = 'live:1' from channel")
    again = await patiently(change)
    assert (again.done, again.actual) == (False, live)
    assert (await log.tail(channel)).guard == live


async def test_of_a_session_its_run_and_its_end_nothing_is_made_twice(
    far_db: PostgresDatabase, loses: Loses, db: PostgresDatabase
) -> None:
    far, near, runs = PostgresSessionStore(far_db), PostgresSessionStore(db), PostgresRunStore(far_db)
    session = make_session("one", external_id="chat")
    create = partial(far.create, session, initial(session))
    await loses(create, "select count(*) = 1 from session")
    rival = make_session("two", external_id="chat")
    again = await patiently(partial(far.create, rival, initial(rival)))
    assert (again.is_new, again.session.id) == (False, session.id)

    claim = partial(far.claim_run, following(again.session), expected_version=1)
    await loses(claim, "select current_run_version = 2 from session")
    assert await patiently(claim) is Claim.LOST
    run_id = following(again.session).id
    assert [line.run_id for line in await near.list_runs(ENV_A.id, session.id, 10)] == [run_id, initial(session).id]

    begin = partial(runs.begin, run_id, 1)
    await loses(begin, "select epoch = 1 from session")
    assert await patiently(begin) is None, "nobody knows whether it was this caller: the next attempt begins anew"
    finish = partial(runs.finish, Holding(run_id, 1), RunStatus.COMPLETED_SUCCESSFULLY)
    await loses(finish, "select count(*) = 1 from run where ended_at is not null")
    assert await patiently(finish) is False

    close = partial(far.close, ENV_A.id, session.id, "first")
    await loses(close, "select closed_at is not null from session")
    closed = await patiently(partial(far.close, ENV_A.id, session.id, "second"))
    assert closed.closed_reason == "first"


@attrs.define
class Writer:
    """Appends until each record is acknowledged."""

    log: PostgresChannelLog
    channel: Channel
    acknowledged: dict[str, int] = attrs.field(factory=dict)
    found: int = 0

    async def write(self, number: int, count: int) -> None:
        for part in (f"{number}.{step}" for step in range(count)):
            while part not in self.acknowledged:
                try:
                    (place,) = await self.log.append(self.channel, [record(part, part)], guard=UNTOUCHED)
                except ChannelUnavailableError:
                    await anyio.sleep(0.002)
                else:
                    self.acknowledged[part] = place.seq
                    self.found += not place.is_new


async def test_writers_whose_answers_are_lost_again_and_again_lose_and_double_nothing(
    far_db: PostgresDatabase, proxy: PostgresProxy, log: PostgresChannelLog
) -> None:
    writers = [Writer(PostgresChannelLog(far_db), make_channel(f"{number}")) for number in range(4)]
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as writing:
            for number in range(16):
                writing.start_soon(writers[number % 4].write, number, 100)
            tasks.start_soon(_lose_for_ever, proxy)
        tasks.cancel_scope.cancel()
    assert sum(writer.found for writer in writers) > 0, "no answer was lost"
    for writer in writers:
        stored = (await log.read(writer.channel, 0, 1000)).records
        assert {found.body.decode(): found.seq for found in stored} == writer.acknowledged
        assert len(stored) == 400


async def _lose_for_ever(proxy: PostgresProxy) -> None:
    while True:
        await anyio.sleep(0.03)
        proxy.is_mute = True
        await anyio.sleep(0.01)
        proxy.cut()
