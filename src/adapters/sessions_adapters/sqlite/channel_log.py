"""Channels in SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

import attrs

from sessions_adapters.sqlite import log_reader
from sessions_adapters.sqlite.database import SqliteDatabase, for_owner
from sessions_adapters.sqlite.log_reader import storable
from sessions_adapters.sqlite.requests import Append
from sessions_core.domain.channel import Appended, Batch, Channel, NewRecord, Record, Tail, trim_command
from sessions_core.domain.guard import Guard, GuardChange
from sessions_core.errors import ChannelUnavailableError
from sessions_core.ports.channel_log import ChannelLog

_READ_AHEAD: Final = 512


@attrs.define
class SqliteChannelLog(ChannelLog):
    """Keeps the records of every channel in one table. Concurrent appends share a commit.

    An append that has returned is on the disk (``synchronous = full``).
    """

    _db: SqliteDatabase = attrs.field(validator=for_owner)

    async def append(
        self, channel: Channel, records: Sequence[NewRecord], *, guard: Guard, if_tail: int | None = None
    ) -> list[Appended]:
        if not records:
            return []
        db = self._db
        future: asyncio.Future[list[Appended]] = db.loop.create_future()
        try:
            db.writer.put(Append(channel, tuple(records), guard, future, if_tail))
            return await future
        except sqlite3.Error as exc:
            raise ChannelUnavailableError from exc

    async def set_guard(
        self, channel: Channel, new: Guard, *, expect: Guard, if_tail: int | None = None
    ) -> GuardChange:
        log = self._db.log
        return await self._db.write(
            lambda _: log.set_guard(channel, new, expect=expect, if_tail=if_tail), failure=ChannelUnavailableError
        )

    async def tail(self, channel: Channel) -> Tail:
        return await self._db.read(lambda c: log_reader.read_tail(c, channel), failure=ChannelUnavailableError)

    async def read(self, channel: Channel, start: int, limit: int) -> Batch:
        return await self._db.read(lambda c: log_reader.read(c, channel, start, limit), failure=ChannelUnavailableError)

    async def read_back(self, channel: Channel, before: int, limit: int) -> list[Record]:
        return await self._db.read(
            lambda c: log_reader.read_back(c, channel, before, limit), failure=ChannelUnavailableError
        )

    def follow(self, channel: Channel, start: int) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        return self._db.followers.open(channel, storable(start), partial(self._read_ahead, channel))

    async def trim(self, channel: Channel, first_kept: int, *, guard: Guard) -> int:
        trimmer = self._db.trimmer
        first_kept = storable(first_kept)
        command = Append(channel, (trim_command(first_kept),), guard)
        await self._db.write(
            lambda _: trimmer.trim(command, first_kept), failure=ChannelUnavailableError, after=trimmer.trimmed
        )
        if command.error is not None:
            raise command.error
        assert command.answer is not None
        return command.answer[0].seq

    async def _read_ahead(self, channel: Channel, start: int) -> Batch:
        size = self._db.config.buffered_bytes
        return await self._db.read(
            lambda c: log_reader.read(c, channel, start, _READ_AHEAD, size), failure=ChannelUnavailableError
        )
