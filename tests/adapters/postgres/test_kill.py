"""kill -9 of the server while records are being appended and followed: nothing that was acknowledged is lost or doubled."""

from __future__ import annotations

import anyio
import attrs
import pytest

from contract.makers import ENV_A, initial, make_channel, make_session, record
from harness.postgres import PostgresProcess
from sessions_adapters.postgres import (
    PostgresChannelLog,
    PostgresConfig,
    PostgresSessionStore,
    migrate,
    open_database,
)
from sessions_core.domain.channel import Channel, Record
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.errors import StoreUnavailableError, UnavailableError

pytestmark = [pytest.mark.needs_postgres, pytest.mark.kill, pytest.mark.slow]

KILLS = 3
WRITERS = 16


@attrs.define(eq=False)
class Storm:
    """Writers and followers that never give up, and what they were told."""

    log: PostgresChannelLog
    acknowledged: dict[Channel, dict[str, int]] = attrs.field(factory=dict)
    seen: dict[Channel, list[Record]] = attrs.field(factory=dict)
    is_over: bool = False

    async def write(self, number: int) -> None:
        channel, sent = make_channel(f"{number % 5}"), 0
        parts = self.acknowledged.setdefault(channel, {})
        while not self.is_over:
            part = f"{number}.{sent}"
            try:
                (place,) = await self.log.append(channel, [record(part, part)], guard=UNTOUCHED)
            except UnavailableError:
                await anyio.sleep(0.01)
            else:
                parts[part] = place.seq
                sent += 1

    async def follow(self, channel: Channel) -> None:
        seen = self.seen.setdefault(channel, [])
        while True:
            try:
                async with self.log.follow(channel, len(seen)) as batches:
                    async for batch in batches:
                        seen.extend(batch.records)
            except UnavailableError:
                await anyio.sleep(0.01)

    @property
    def count(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    async def until(self, count: int) -> None:
        with anyio.fail_after(20):
            while self.count < count:
                await anyio.sleep(0.005)


async def test_nothing_acknowledged_is_lost_or_doubled_by_a_kill(server: PostgresProcess) -> None:
    config = PostgresConfig(url=server.url)
    await migrate(config)
    async with open_database(config) as db:
        storm = Storm(PostgresChannelLog(db))
        channels = [make_channel(f"{number}") for number in range(5)]
        async with anyio.create_task_group() as tasks:
            for channel in channels:
                tasks.start_soon(storm.follow, channel)
            async with anyio.create_task_group() as writers:
                for number in range(WRITERS):
                    writers.start_soon(storm.write, number)
                for _ in range(KILLS):
                    await storm.until(storm.count + 400)
                    server.kill()
                    server.start()
                await storm.until(storm.count + 400)
                storm.is_over = True
            with anyio.fail_after(20):
                while sum(map(len, storm.seen.values())) < storm.count:
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        for channel in channels:
            stored = list((await storm.log.read(channel, 0, 100_000)).records)
            assert {found.body.decode(): found.seq for found in stored} == storm.acknowledged[channel]
            assert [found.seq for found in stored] == list(range(len(stored)))
            assert storm.seen[channel] == stored


async def test_a_store_fails_clearly_while_the_server_is_down_and_works_when_it_is_back(
    server: PostgresProcess,
) -> None:
    config = PostgresConfig(url=server.url)
    await migrate(config)
    async with open_database(config) as db:
        store = PostgresSessionStore(db)
        session = make_session()
        await store.create(session, initial(session))
        server.kill()
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                await store.check()
        server.start()
        await store.check()
        assert await store.find(ENV_A.id, session.id) is not None
