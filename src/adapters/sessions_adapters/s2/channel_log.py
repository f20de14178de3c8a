"""Channels in S2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import attrs

from sessions_adapters.s2 import reader
from sessions_adapters.s2.basin import S2Basin
from sessions_adapters.s2.both import both
from sessions_adapters.s2.failures import translated
from sessions_adapters.s2.follower import follow
from sessions_adapters.s2.records import Entry, check_batch, entry_of, trim_entry
from sessions_adapters.s2.requests import Append, Request, SetGuard
from sessions_adapters.s2.stream import Stream
from sessions_core.domain.channel import Appended, Batch, Channel, NewRecord, Record, Tail
from sessions_core.domain.guard import Guard, GuardChange
from sessions_core.ports.channel_log import ChannelLog

T = TypeVar("T")


@attrs.define
class S2ChannelLog(ChannelLog):
    """Keeps the records of each channel in a stream of its own. Concurrent appends to a channel share a batch.

    An append that has returned is durable by S2's word. A guard is a fencing token, and setting it takes a seq: readers
    see a command record there. One append may hold at most 1 000 records and 1 MiB.
    """

    _basin: S2Basin

    async def append(
        self, channel: Channel, records: Sequence[NewRecord], *, guard: Guard, if_tail: int | None = None
    ) -> list[Appended]:
        if not records:
            return []
        entries = [entry_of(record) for record in records]
        check_batch(entries)
        return await self._append(channel, entries, guard, if_tail)

    async def set_guard(
        self, channel: Channel, new: Guard, *, expect: Guard, if_tail: int | None = None
    ) -> GuardChange:
        answer: asyncio.Future[GuardChange] = asyncio.get_running_loop().create_future()
        request = SetGuard(new, expect, if_tail, self._basin.stamp(), self._basin.deadline(), answer)
        return await self._ask(channel, request, answer)

    async def tail(self, channel: Channel) -> Tail:
        stream = self._basin.stream(channel)
        with translated():
            end = await stream.tail()
            if end.seq_num == 0:
                return Tail()
            first, guard = await both(stream.first_seq(), self._guard(channel, stream, end.seq_num))
        first_seq = end.seq_num if first is None else min(first, end.seq_num)
        return Tail(next_seq=end.seq_num, first_seq=first_seq, timestamp=end.timestamp, guard=guard)

    async def read(self, channel: Channel, start: int, limit: int) -> Batch:
        with translated():
            return await reader.read(self._basin.stream(channel), start, limit)

    async def read_back(self, channel: Channel, before: int, limit: int) -> list[Record]:
        with translated():
            return await reader.read_back(self._basin.stream(channel), before, limit)

    def follow(self, channel: Channel, start: int) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        return follow(self._basin.stream(channel), start)

    async def trim(self, channel: Channel, first_kept: int, *, guard: Guard) -> int:
        appended = await self._append(channel, [trim_entry(first_kept)], guard)
        return appended[0].seq

    async def _append(
        self, channel: Channel, entries: Sequence[Entry], guard: Guard, if_tail: int | None = None
    ) -> list[Appended]:
        timestamp = self._basin.stamp()
        for entry in entries:
            entry.stored.timestamp = timestamp
        answer: asyncio.Future[list[Appended]] = asyncio.get_running_loop().create_future()
        request = Append(entries, guard, self._basin.deadline(), answer, if_tail)
        return await self._ask(channel, request, answer)

    async def _ask(self, channel: Channel, request: Request, answer: asyncio.Future[T]) -> T:
        """Wait for the *answer* to *request* until its deadline, whatever its writer is waiting for."""
        self._basin.writer(channel).put(request)
        with translated():
            async with asyncio.timeout_at(request.deadline):
                return await answer

    async def _guard(self, channel: Channel, stream: Stream, next_seq: int) -> Guard:
        """Return the guard; from memory if nothing was stored since we knew it, for setting it would have taken a seq."""
        writer = self._basin.find_writer(channel)
        if writer is not None and writer.tail.next_seq == next_seq and writer.tail.guard is not None:
            return writer.tail.guard
        return await stream.guard()
