"""Jobs of the load client that do without a server of ours: one call after the other, straight to the system behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Final

import asyncpg
import attrs
from s2_sdk import S2, AppendInput, Endpoints, Record

from benchmarks.load import BODY_BYTES
from benchmarks.samples import Samples
from sessions_adapters.s2 import S2Config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Call = Callable[[int], Awaitable[object]]

_TABLE: Final = """
    create table if not exists public.yardstick (
        id bigint generated always as identity primary key, channel text not null, part text not null, body text not null
    )
"""
_INSERT: Final = "insert into public.yardstick (channel, part, body) values ($1, $2, $3) returning id"
_TEXT: Final = "x" * BODY_BYTES


@attrs.frozen(kw_only=True)
class DirectCalls:
    """Calls that are made one by one over one connection.

    Attributes:
        connect: Opens the connection, and gives the call, which takes its number.
        url: What is connected to.
    """

    connect: Callable[[str], AbstractAsyncContextManager[Call]]
    url: str
    warm_up_seconds: float
    seconds: float

    def run(self) -> Samples:
        """Call, and time the answers."""
        return asyncio.run(self._run())

    async def _run(self) -> Samples:
        async with self.connect(self.url) as call:
            started, busy = perf_counter(), process_time()
            count_from = started + self.warm_up_seconds
            latencies, number, now = list[float](), 0, started
            while now < count_from + self.seconds or not latencies:
                await call(number)
                before, now, number = now, perf_counter(), number + 1
                if before >= count_from:
                    latencies.append(now - before)
        return Samples(
            latencies=latencies,
            seconds=now - count_from,
            sent=[number],
            busy=(process_time() - busy) / (now - started),
        )


@asynccontextmanager
async def inserts(url: str) -> AsyncIterator[Call]:
    """Insert a row with a body like that of an append, a transaction by itself, through asyncpg."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_TABLE)
        statement = await connection.prepare(_INSERT)
        yield lambda number: statement.fetchval("session", f"part-{number}", _TEXT)
    finally:
        await connection.close()


@asynccontextmanager
async def s2_appends(url: str) -> AsyncIterator[Call]:
    """Append a record with a body like that of an append to one stream, through s2-sdk, without any condition."""
    config = S2Config.from_url(url)
    assert config.endpoint is not None
    async with S2(config.token, endpoints=Endpoints(config.endpoint, config.endpoint)) as client:
        stream = client.basin(config.basin).stream("yardstick")
        yield lambda _: stream.append(AppendInput([Record(_TEXT.encode())]))
