"""Who waits on which channel: told to every process, known by it, and forgotten when the wait is over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import asyncpg
import pytest
from anyio.lowlevel import checkpoint

from contract.makers import make_channel, make_waitpoint, record
from sessions_adapters.postgres import (
    PostgresChannelLog,
    PostgresConfig,
    PostgresDatabase,
    PostgresWaitpointStore,
    PostgresWaitRegistry,
    open_database,
    trimmer,
    waits,
)
from sessions_adapters.postgres.values import channel_key
from sessions_core.domain.channel import Channel
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.domain.ids import WaitpointId

pytestmark = pytest.mark.needs_postgres

DAY = timedelta(days=1)
SOON = 10.0


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


async def test_a_process_learns_that_a_wait_is_over_that_was_given_up_or_drained_elsewhere(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "REFRESH_SECONDS", 0.0)
    config = PostgresConfig(url=url, poll_interval=timedelta(milliseconds=50))
    async with open_database(config) as db, open_database(config) as other_db:
        registry, other = PostgresWaitRegistry(db), PostgresWaitRegistry(other_db)
        given_up, drained = make_channel("given up"), make_channel("drained")
        for channel in (given_up, drained):
            await registry.register(channel, make_waitpoint().id, DAY)
        await registry.unregister(given_up, make_waitpoint().id)
        with anyio.fail_after(SOON):
            while not await other.drain(drained):
                await checkpoint()
            while any(
                hint.may_have(channel_key(channel))
                for hint in (db.waits, other_db.waits)
                for channel in (given_up, drained)
            ):
                await anyio.sleep(0.01)


async def test_after_too_many_waits_to_know_them_all_a_process_knows_them_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(waits, "MOST_KNOWN", 5)
    async with open_database(PostgresConfig(url=url, poll_interval=timedelta(milliseconds=50))) as db:
        registry, nobody = PostgresWaitRegistry(db), channel_key(make_channel("nobody"))
        for number in range(8):
            await registry.register(make_channel(f"{number}"), make_waitpoint().id, DAY)
        assert db.waits.may_have(nobody)
        for number in range(8):
            assert list(await registry.drain(make_channel(f"{number}"))) == [make_waitpoint().id]
        with anyio.fail_after(SOON):
            while db.waits.may_have(nobody):
                await anyio.sleep(0.01)


async def test_what_is_registered_while_the_database_is_asked_is_not_forgotten() -> None:
    hint = waits.Waits()

    class Slow:
        async def fetch(self, *_: object) -> list[dict[str, bytes]]:
            hint.add(b"meanwhile")
            return [{"channel": b"before"}]

    slow: Any = Slow()
    hint.add(b"over")
    await hint.look(slow, anew=True)
    assert [hint.may_have(key) for key in (b"before", b"meanwhile", b"over")] == [True, True, False]


@pytest.mark.parametrize("id_", ["waitpoint_\x00", "waitpoint_\ud800"])
async def test_whoever_waits_for_what_cannot_be_stored_does_not_deafen_the_process(
    url: str, other_db: PostgresDatabase, id_: str, caplog: pytest.LogCaptureFixture
) -> None:
    waitpoint = make_waitpoint()
    async with open_database(PostgresConfig(url=url, poll_interval=timedelta(milliseconds=20))) as db:
        await PostgresWaitpointStore(db).create(waitpoint)
        with (
            db.waiters.expect(WaitpointId(id_)) as odd,
            db.waiters.expect(waitpoint.id) as news,
            anyio.fail_after(SOON),
        ):
            await other_db.execute("update waitpoint set status = 'COMPLETED'")  # nobody tells: it has to be looked at
            assert await news
            assert not odd.done()
    assert caplog.messages == []


async def test_who_waits_no_more_is_forgotten_unless_somebody_waits_longer_on_that_channel(
    config: PostgresConfig, admin: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimmer, "PAUSE_SECONDS", 0.05)
    over, kept = make_channel("over"), make_channel("kept")
    first, second = make_waitpoint().id, WaitpointId("waitpoint_second")
    async with open_database(config) as db:
        registry = PostgresWaitRegistry(db)
        for channel, waitpoint, keep in ((kept, second, DAY), (kept, first, -DAY), (over, first, -DAY)):
            await registry.register(channel, waitpoint, keep)
        with anyio.fail_after(SOON):
            while await admin.fetchval("select count(*) from wait_member") > 2:
                await checkpoint()
        assert set(await registry.drain(kept)) == {first, second}
        assert list(await registry.drain(over)) == []


async def test_a_trim_does_not_make_the_members_of_all_channels_be_looked_through(
    log: PostgresChannelLog, db: PostgresDatabase, admin: asyncpg.Connection[asyncpg.Record], channel: Channel
) -> None:
    async def trim() -> None:
        await log.append(channel, [record()], guard=UNTOUCHED)
        seq = await log.trim(channel, 1_000, guard=UNTOUCHED)
        with anyio.fail_after(SOON):
            while await admin.fetchval("select min(seq) from record") < seq:
                await checkpoint()

    await trim()  # the first round looks
    await PostgresWaitRegistry(db).register(channel, make_waitpoint().id, -DAY)
    await trim()
    assert await admin.fetchval("select count(*) from wait_member") == 1
