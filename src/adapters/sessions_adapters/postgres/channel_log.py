"""Channels in Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

import attrs

from sessions_adapters.postgres import log_reader
from sessions_adapters.postgres.database import PostgresDatabase
from sessions_adapters.postgres.failures import translated
from sessions_adapters.postgres.log_writer import ensure_channels, headers_text
from sessions_adapters.postgres.values import channel_key, storable_number
from sessions_core.domain.channel import Appended, Batch, Channel, NewRecord, Record, Tail, trim_command
from sessions_core.domain.guard import UNTOUCHED, Guard, GuardChange
from sessions_core.errors import ChannelUnavailableError, GuardMismatchError
from sessions_core.ports.channel_log import READ_BYTES, ChannelLog

SET_GUARD: Final = "select done, actual, tail from set_guard($1, $2, $3, $4, $5)"
TRIM: Final = "select seq, stamp, refused_by from trim_channel($1, $2, $3, $4, $5, $6)"
_READ_AHEAD: Final = 512


@attrs.define
class PostgresChannelLog(ChannelLog):
    """Keeps the records of every channel in one table. Concurrent appends of a process share a transaction.

    An append that has returned is on the server's disk, as far as the server's own settings promise that
    (``synchronous_commit``). Followers in other processes are woken by notifications, within ``poll_interval`` if one is
    lost.
    """

    _db: PostgresDatabase

    async def append(
        self, channel: Channel, records: Sequence[NewRecord], *, guard: Guard, if_tail: int | None = None
    ) -> list[Appended]:
        if not records:
            return []
        with translated(ChannelUnavailableError):
            return await self._db.log.append(channel, records, guard, if_tail)

    async def set_guard(
        self, channel: Channel, new: Guard, *, expect: Guard, if_tail: int | None = None
    ) -> GuardChange:
        rises = expect.rises_to(new)
        values = (channel_key(channel), str(new), str(expect), if_tail, rises)
        async with self._db.connection(ChannelUnavailableError) as connection:
            row = await connection.fetchrow(SET_GUARD, *values)
            if row is None and not (rises and expect == UNTOUCHED and if_tail in (None, 0)):
                return GuardChange(done=False, actual=UNTOUCHED, tail=0)
            if row is None:
                await ensure_channels(connection, (channel,))
                row = await connection.fetchrow(SET_GUARD, *values)
        assert row is not None
        return GuardChange(done=row["done"], actual=Guard.parse(row["actual"]), tail=row["tail"])

    async def tail(self, channel: Channel) -> Tail:
        row = await self._db.fetchrow(log_reader.READ_TAIL, channel_key(channel), failure=ChannelUnavailableError)
        return log_reader.tail_of(row)

    async def read(self, channel: Channel, start: int, limit: int) -> Batch:
        return await self._read(channel_key(channel), limit, READ_BYTES, start)

    async def read_back(self, channel: Channel, before: int, limit: int) -> list[Record]:
        values = log_reader.read_values(channel_key(channel), before, limit, READ_BYTES)
        rows = await self._db.fetch(log_reader.READ_BACK, *values, failure=ChannelUnavailableError)
        return [log_reader.record_of(row) for row in rows]

    def follow(self, channel: Channel, start: int) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        key = channel_key(channel)
        read = partial(self._read, key, _READ_AHEAD, self._db.config.buffered_bytes)
        return self._db.followers.open(key, storable_number(start), read)

    async def trim(self, channel: Channel, first_kept: int, *, guard: Guard) -> int:
        first_kept = storable_number(first_kept)
        key, command = channel_key(channel), trim_command(first_kept)
        values = (key, str(guard), command.body, headers_text(command), first_kept, self._db.at_ms())
        async with self._db.connection(ChannelUnavailableError) as connection:
            row = await connection.fetchrow(TRIM, *values)
            if row is None:
                await ensure_channels(connection, (channel,))
                row = await connection.fetchrow(TRIM, *values)
        assert row is not None
        if row["refused_by"] is not None:
            raise GuardMismatchError(Guard.parse(row["refused_by"]))
        seq: int = row["seq"]
        self._db.published({key: [Record(seq, row["stamp"], command.body, command.headers)]})
        self._db.trimmer.wake()
        return seq

    async def _read(self, key: bytes, limit: int, max_bytes: int, start: int) -> Batch:
        values = log_reader.read_values(key, start, limit, max_bytes)
        rows = await self._db.fetch(log_reader.READ, *values, failure=ChannelUnavailableError)
        return log_reader.batch_of(rows)
