"""One stream of S2, asked plainly: a stream that is not there is an empty one.

Raises the driver's errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import attrs
from s2_sdk import (
    AppendAck,
    AppendInput,
    FencingTokenMismatchError,
    ReadLimit,
    ReadSession,
    ReadUnwrittenError,
    S2ServerError,
    S2Stream,
    SeqNum,
    SequencedRecord,
    StreamPosition,
)
from s2_sdk import Record as StoredRecord
from s2_sdk import S2Basin as DriverBasin

from sessions_adapters.s2.failures import EXISTS, guard_of, is_missing
from sessions_adapters.s2.records import MAX_BATCH_RECORDS
from sessions_core.domain.guard import UNTOUCHED, Guard

NOBODYS_TOKEN: Final = "?"  # noqa: S105 - a fencing token that no guard has
NEVER_SEQ: Final = 2**62
EMPTY: Final = StreamPosition(0, 0)


@attrs.frozen
class Found:
    """Records of a stream from some seq on, and its tail if the answer told it."""

    records: Sequence[SequencedRecord] = ()
    tail: StreamPosition | None = None


@attrs.define(eq=False)
class Stream:
    """Appends through one client, which never tries again by itself, and reads through another.

    Attributes:
        flights: Limits how many appends are under way.
    """

    name: str
    _writes: DriverBasin
    _reads: DriverBasin
    _timeout: float
    _flights: asyncio.Semaphore

    async def append(self, records: Sequence[StoredRecord], *, seq: int, token: str) -> AppendAck:
        """Append *records*, all or none, if the next seq is *seq* and the fencing token is *token*. Tries once."""
        put = AppendInput(list(records), match_seq_num=seq, fencing_token=token)
        async with self._flights, asyncio.timeout(self._timeout):
            stream = _open(self._writes, self.name)
            try:
                ack: AppendAck = await stream.append(put)
            except S2ServerError as error:
                if not is_missing(error):
                    raise
                await self.ensure()
                ack = await stream.append(put)
        return ack

    async def ensure(self) -> None:
        """Make the stream, unless it is there."""
        try:
            await self._reads.create_stream(self.name)
        except S2ServerError as error:
            if error.code != EXISTS:
                raise

    async def tail(self) -> StreamPosition:
        """Return where the next record goes, and when the last one came."""
        try:
            end: StreamPosition = await self._reader().check_tail()
        except S2ServerError as error:
            if is_missing(error):
                return EMPTY
            raise
        return end

    async def guard(self) -> Guard:
        """Return the guard, in one round trip however long ago it was set.

        Nothing but a refused append tells it, so one is sent that cannot be taken: no guard has its fencing token, and no
        stream gets as long as it asks for.
        """
        put = AppendInput([StoredRecord(b"")], match_seq_num=NEVER_SEQ, fencing_token=NOBODYS_TOKEN)
        try:
            await self._reader().append(put)
        except FencingTokenMismatchError as error:
            return guard_of(error.expected_fencing_token)
        except S2ServerError as error:
            if is_missing(error):
                return UNTOUCHED
            raise
        raise AssertionError(self.name)  # pragma: no cover - S2 has broken its word

    async def read(self, start: int, count: int) -> Found:
        """Return kept records from *start* on: at most *count*, and at most about 1 MiB; none only at the tail."""
        if count <= 0:
            return Found()
        limit = ReadLimit(count=min(count, MAX_BATCH_RECORDS))
        try:
            batch = await self._reader().read(start=SeqNum(max(start, 0)), limit=limit)
        except ReadUnwrittenError as error:
            return Found((), error.tail)
        except S2ServerError as error:
            if is_missing(error):
                return Found((), EMPTY)
            raise
        return Found(batch.records, batch.tail)

    async def range(self, start: int, end: int) -> list[SequencedRecord]:
        """Return all kept records from *start* to before *end*."""
        records: list[SequencedRecord] = []
        while start < end and (found := await self.read(start, end - start)).records:
            records += [record for record in found.records if record.seq_num < end]
            start = found.records[-1].seq_num + 1
        return records

    def session(self, start: int) -> ReadSession:
        """Open an endless reading from *start*, or from the tail if that is before."""
        session: ReadSession = self._reader().read_session(start=SeqNum(start), clamp_to_tail=True)
        return session

    async def first_seq(self) -> int | None:
        """Return the seq of the first kept record, or None if there is none."""
        found = await self.read(0, 1)
        return found.records[0].seq_num if found.records else None

    def _reader(self) -> S2Stream:
        return _open(self._reads, self.name)


def _open(basin: DriverBasin, name: str) -> S2Stream:
    stream: S2Stream = basin.stream(name)
    return stream
