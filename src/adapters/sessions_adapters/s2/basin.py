"""The basin: connections to S2, the streams in it, and what is known of those written lately."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import anyio
import attrs
from s2_sdk import (
    S2,
    AppendRetryPolicy,
    BasinConfig,
    Endpoints,
    Retry,
    S2ServerError,
    StreamConfig,
    Timeout,
    Timestamping,
    TimestampingMode,
)
from s2_sdk import S2Basin as DriverBasin

from sessions_adapters.s2.config import S2Config
from sessions_adapters.s2.failures import EXISTS, translated
from sessions_adapters.s2.names import stream_name
from sessions_adapters.s2.parts import PartMemory
from sessions_adapters.s2.stream import Stream
from sessions_adapters.s2.tail import KnownTail
from sessions_adapters.s2.writer import Writer
from sessions_core.domain.channel import Channel
from sessions_core.errors import IncompatibleStoreError
from sessions_core.ports.clock import Clock

READ_ATTEMPTS: Final = 5
CLOSE_SECONDS: Final = 5.0
CONNECT_TIMEOUT: Final = timedelta(seconds=3)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_BASIN_NOT_OURS: Final = 403


@attrs.define(eq=False)
class S2Basin:
    """Connections, shared by the channel log and by whoever issues credentials. Make one with :func:`open_basin`.

    Attributes:
        clock: Stamps the records; None leaves that to S2, whose time it then is.
        admin: Speaks for the account.
    """

    config: S2Config
    clock: Clock | None
    admin: S2
    _writes: DriverBasin
    _reads: DriverBasin
    _flights: asyncio.Semaphore = attrs.field(init=False)
    _parts: PartMemory = attrs.field(init=False)
    _young: dict[Channel, Writer] = attrs.field(init=False, factory=dict)
    _old: dict[Channel, Writer] = attrs.field(init=False, factory=dict)
    _tasks: set[asyncio.Task[None]] = attrs.field(init=False, factory=set)

    @_flights.default
    def _make_flights(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(self.config.flights)

    @_parts.default
    def _make_parts(self) -> PartMemory:
        config = self.config
        return PartMemory(config.part_window_records, config.part_window // _MILLISECOND, config.parts)

    def stream(self, channel: Channel) -> Stream:
        """Return the stream of *channel*, which need not be there yet."""
        name = stream_name(self.config.prefix, channel)
        return Stream(name, self._writes, self._reads, self.config.timeout.total_seconds(), self._flights)

    def writer(self, channel: Channel) -> Writer:
        """Return the writer of *channel*.

        Those that were used lately are kept, in two generations: when the young one is full it becomes the old one, and
        what is needed again returns from there. One that is lost costs reading back; two for one channel get along.
        """
        writer = self._young.get(channel)
        if writer is None:
            writer = self._old.pop(channel, None) or self._make_writer(channel)
            if len(self._young) * 2 >= self.config.channels:
                self._young, self._old = {}, self._young
            self._young[channel] = writer
        return writer

    def find_writer(self, channel: Channel) -> Writer | None:
        """Return the writer of *channel* if there is one."""
        return self._young.get(channel) or self._old.get(channel)

    def stamp(self) -> int | None:
        """Return the arrival time of a record that is appended now; None lets S2 tell it."""
        return None if self.clock is None else (self.clock.now() - _EPOCH) // _MILLISECOND

    def now(self) -> int:
        """Return the time in Unix milliseconds, as well as this process knows it."""
        stamp = self.stamp()
        return time.time_ns() // 1_000_000 if stamp is None else stamp

    def deadline(self) -> float:
        """Return when an append is given up that comes now, by the clock of the loop."""
        return asyncio.get_running_loop().time() + self.config.patience.total_seconds()

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _make_writer(self, channel: Channel) -> Writer:
        stream, config = self.stream(channel), self.config
        tail = KnownTail(stream, self._parts, self.now, config.window_bytes)
        return Writer(stream, tail, self._spawn)

    def _spawn(self, writer: Writer) -> None:
        task = asyncio.get_running_loop().create_task(writer.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@asynccontextmanager
async def open_basin(config: S2Config, *, clock: Clock | None = None) -> AsyncGenerator[S2Basin]:
    """Connect, and make the basin if need be; disconnect at the end.

    Args:
        config: Where it is.
        clock: Stamps the records instead of S2.

    Raises:
        ChannelUnavailableError: No answer, or the token is not good.
        IncompatibleStoreError: The basin deletes streams that are empty, whose seqs would begin again at 0.
    """
    async with AsyncExitStack() as stack:
        writes = await stack.enter_async_context(_client(config, attempts=1))
        reads = await stack.enter_async_context(_client(config, attempts=READ_ATTEMPTS))
        if config.creates_basin:
            with translated():
                await _ensure_basin(reads, config, clock)
        basin = S2Basin(config, clock, reads, writes.basin(config.basin), reads.basin(config.basin))
        try:
            yield basin
        finally:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await basin.close()


@asynccontextmanager
async def _client(config: S2Config, *, attempts: int) -> AsyncGenerator[S2]:
    """Open a client that makes so many *attempts* at each request.

    It may repeat any append: those of the client that tries more than once are such as S2 cannot take.
    """
    endpoints = Endpoints.default() if config.endpoint is None else Endpoints(config.endpoint, config.endpoint)
    retry = Retry(max_attempts=attempts, append_retry_policy=AppendRetryPolicy.ALL)
    timeout = Timeout(request=config.timeout, connection=min(config.timeout, CONNECT_TIMEOUT))
    client = S2(config.token, endpoints=endpoints, timeout=timeout, retry=retry)
    try:
        yield client
    finally:
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await client.close()


async def _ensure_basin(client: S2, config: S2Config, clock: Clock | None) -> None:
    try:
        await client.create_basin(config.basin, config=_basin_config(config, clock))
    except S2ServerError as error:
        if error.code != EXISTS:
            raise
        await _check_basin(client, config)


async def _check_basin(client: S2, config: S2Config) -> None:
    """Refuse a basin whose streams come to an end and begin anew."""
    try:
        found = await client.get_basin_config(config.basin)
    except S2ServerError as error:
        if error.status_code == _BASIN_NOT_OURS:
            return
        raise
    streams = found.default_stream_config
    if streams is not None and streams.delete_on_empty_min_age:
        raise IncompatibleStoreError(
            f"the S2 basin {config.basin} deletes empty streams, after which numbers would be used again; "
            "switch its delete_on_empty off"
        )


def _basin_config(config: S2Config, clock: Clock | None) -> BasinConfig:
    """Describe a basin of ours. ``delete_on_empty`` is never set: a stream that is made again begins at seq 0."""
    mode = TimestampingMode.ARRIVAL if clock is None else TimestampingMode.CLIENT_PREFER
    streams = StreamConfig(
        retention_policy="infinite" if config.retention is None else int(config.retention.total_seconds()),
        timestamping=Timestamping(mode=mode, uncapped=clock is not None),
    )
    return BasinConfig(default_stream_config=streams, create_stream_on_append=True, create_stream_on_read=False)
