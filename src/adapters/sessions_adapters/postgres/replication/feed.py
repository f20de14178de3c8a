"""The change feed on logical replication."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Final

import anyio
import attrs

from sessions_adapters.postgres.config import PostgresConfig
from sessions_adapters.postgres.replication.config import ReplicationConfig
from sessions_adapters.postgres.replication.connection import ReplicationConnection, connect_for_replication
from sessions_adapters.postgres.replication.framing import decode_frame, encode_status
from sessions_adapters.postgres.replication.held import HeldMessages
from sessions_adapters.postgres.replication.messages import Commit, Keepalive
from sessions_adapters.postgres.replication.progress import Progress
from sessions_adapters.postgres.replication.reader import MalformedMessageError
from sessions_adapters.postgres.replication.setup import FEED, prepare, unavailable
from sessions_adapters.postgres.replication.transactions import Transactions
from sessions_core.errors import IncompatibleStoreError, StoreUnavailableError
from sessions_core.ports.change_feed import ChangeBatch, ChangeFeed, ChangeStream

MOST_REQUESTS: Final = 100
"""A server that asks for more replies than this between two that it gets anyway is shutting down."""
UNREADABLE: Final = "The server streams what this version of the software cannot read; install a newer release"


@attrs.define
class PostgresChangeFeed(ChangeFeed):
    """Streams from a replication slot, through a publication; both are made if they are missing.

    Needs a direct connection: poolers do not carry replication. A position is one in the server's log; a session's version is
    where its transaction's commit ends.
    """

    _config: PostgresConfig
    _options: ReplicationConfig = attrs.field(factory=ReplicationConfig)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[PostgresChangeStream]:
        options = self._options
        await prepare(self._config, options)
        async with connect_for_replication(self._config, options.slot) as connection:
            await connection.start(options.publication)
            stream = PostgresChangeStream(connection, self._transactions(), options.status_interval.total_seconds())
            async with stream.reporting():
                yield stream

    def _transactions(self) -> Transactions:
        options = self._options
        held = HeldMessages(options.held_bytes)
        return Transactions(self._config.schema, options.batch_size, options.batch_bytes, held)


@attrs.define(eq=False)
class PostgresChangeStream(ChangeStream):
    """An open stream.

    A server that shuts down waits until all it has sent is acknowledged, and asks for that without a pause. As the sink may be
    away for long, the stream ends then, if somebody waits for the next batch; what is not acknowledged comes again.
    """

    _connection: ReplicationConnection
    _transactions: Transactions
    _status_interval: float
    _progress: Progress = attrs.field(init=False, factory=Progress)
    _frames: deque[bytes] = attrs.field(init=False, factory=deque)
    _requests: int = attrs.field(init=False, default=0)
    _batches: Iterator[ChangeBatch] = attrs.field(init=False, factory=lambda: iter(()))

    def __aiter__(self) -> PostgresChangeStream:
        return self

    async def __anext__(self) -> ChangeBatch:
        while (batch := self._next_batch()) is None:
            self._frames.extend(await self._connection.receive())
        self._progress.hand(batch.position)
        return batch

    def acknowledge(self, position: int) -> None:
        self._progress.acknowledge(position)

    @asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        """Tell the server inside the block how far we are, and once more at its end."""
        report = asyncio.get_running_loop().create_task(self._report_on_and_on())
        try:
            yield
        finally:
            self._transactions.close()
            report.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait((report,))
            with suppress(StoreUnavailableError):
                self._report()

    async def _report_on_and_on(self) -> None:
        with suppress(StoreUnavailableError):  # who reads notices the end of the connection, too
            while True:
                await asyncio.sleep(self._status_interval)
                self._requests = 0
                self._report()

    def _report(self) -> None:
        self._connection.send(encode_status(self._progress.safe, datetime.now(UTC)))

    def _next_batch(self) -> ChangeBatch | None:
        """Return the next batch, if what has been received has one."""
        try:
            batch = next(self._batches, None)
            while batch is None and self._frames:
                self._take(self._frames.popleft())
                batch = next(self._batches, None)
        except MalformedMessageError as exc:
            raise IncompatibleStoreError(UNREADABLE) from exc
        except OSError as exc:  # no room for the file of a large transaction
            raise unavailable(exc) from exc
        return batch

    def _take(self, raw: bytes) -> None:
        frame = decode_frame(raw)
        if isinstance(frame, Keepalive):
            self._hear(frame)
        elif (commit := self._transactions.take(frame.message)) is not None:
            self._batches = self._remaining(commit)

    def _remaining(self, commit: Commit) -> Iterator[ChangeBatch]:
        yield from self._transactions.batches(commit)
        self._progress.skip_to(commit.end_position)

    def _hear(self, keepalive: Keepalive) -> None:
        if not self._transactions.is_open:
            self._progress.skip_to(keepalive.end)
        if keepalive.wants_reply:
            self._requests += 1
            if self._requests > MOST_REQUESTS:
                raise StoreUnavailableError(FEED)
            self._report()
