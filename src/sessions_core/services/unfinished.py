"""Reading what was written on ``out`` since the last turn-complete: an answer that has no end yet."""

from __future__ import annotations

from itertools import takewhile
from typing import Final

import attrs

from sessions_core.domain.channel import TURN_COMPLETE, Channel, Record, RecordKind
from sessions_core.ports.channel_log import ChannelLog

SCAN_RECORDS: Final = 256
LONGEST_RECORDS: Final = 16_384
LONGEST_BYTES: Final = 8_388_608


@attrs.frozen
class Unfinished:
    """The data records of a turn that was not completed.

    Attributes:
        records: Oldest first; none if the last turn was completed.
        is_whole: False if there was more than about 16 000 records or 8 MiB, or some were trimmed; then the oldest are
            left out.
    """

    records: tuple[Record, ...] = ()
    is_whole: bool = True


async def read_unfinished(log: ChannelLog, out: Channel, *, before: int, oldest: int) -> Unfinished:
    """Read back from seq *before* on *out* to the last turn-complete, but not past seq *oldest*.

    Raises:
        UnavailableError: No answer.
    """
    found: list[Record] = []
    size = 0
    while before > oldest:
        records = await log.read_back(out, before, min(SCAN_RECORDS, before - oldest))
        unfinished = list(takewhile(lambda record: record.control != TURN_COMPLETE, records))
        found += [record for record in unfinished if record.kind is RecordKind.DATA]
        size += sum(len(record.body) for record in unfinished)
        if len(unfinished) < len(records):
            break
        if not records:
            return Unfinished(tuple(reversed(found)), is_whole=False)
        before = records[-1].seq
        if before > oldest and (len(found) >= LONGEST_RECORDS or size >= LONGEST_BYTES):
            return Unfinished(tuple(reversed(found)), is_whole=False)
    return Unfinished(tuple(reversed(found)))
