"""Reads of bounded size, in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from s2_sdk import SequencedRecord, StreamPosition

from sessions_adapters.s2.both import both
from sessions_adapters.s2.records import record_of
from sessions_adapters.s2.stream import Stream
from sessions_core.domain.channel import Batch, Record
from sessions_core.ports.channel_log import READ_BYTES

FIRST_LOOK: Final = 64
"""How many records a reading backwards asks for at first; S2 reads forwards only."""


async def read(stream: Stream, start: int, limit: int) -> Batch:
    """Read as the port's ``read`` says."""
    first, tail = await both(stream.read(start, limit), stream.tail())
    records, found, size = list(first.records), first, _size(first.records)
    while found.records and len(records) < limit and size < READ_BYTES and records[-1].seq_num + 1 < tail.seq_num:
        found = await stream.read(records[-1].seq_num + 1, limit - len(records))
        records += found.records
        size += _size(found.records)
    return batch_of(tuple(_light(map(record_of, records))), tail)


async def read_back(stream: Stream, before: int, limit: int) -> list[Record]:
    """Read as the port's ``read_back`` says.

    One answer of S2 is at most about 1 MiB, oldest first, so if the records are too large for what was asked, the newest
    are not in it. Then as many are asked for as were: about that many fit.
    """
    records: list[Record] = []
    size, look = 0, FIRST_LOOK
    while len(records) < limit and size < READ_BYTES and before > 0:
        start = max(before - min(look, limit - len(records)), 0)
        found = await stream.read(start, before - start)
        if found.tail is not None and not found.records and found.tail.seq_num < before:
            before = found.tail.seq_num
            continue
        older = [record for record in found.records if record.seq_num < before]
        if not older:
            break
        if older[-1].seq_num + 1 < before:
            look = max(min(len(older), look // 2), 1)
            continue
        newer = [record_of(record) for record in reversed(older)]
        records += newer
        size += sum(len(record.body) for record in newer)
        if older[0].seq_num > start:
            break
        before, look = start, 2 * look
    return list(_light(records))


def batch_of(records: tuple[Record, ...], tail: StreamPosition | None) -> Batch:
    """Make a batch of *records* that were read when the channel ended at *tail*, or later."""
    if not records:
        return Batch((), tail.seq_num, tail.timestamp) if tail else Batch((), 0)
    last = records[-1]
    if tail is None or tail.seq_num <= last.seq:
        return Batch(records, last.seq + 1, last.timestamp)
    return Batch(records, tail.seq_num, tail.timestamp)


def _light(records: Iterable[Record]) -> Iterator[Record]:
    """Give *records* until their bodies come to as much as the log reads at once."""
    left = READ_BYTES
    for record in records:
        yield record
        left -= len(record.body)
        if left <= 0:
            return


def _size(records: Sequence[SequencedRecord]) -> int:
    return sum(len(record.body) for record in records)
