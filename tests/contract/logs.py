"""What the suites of the channel log share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from contract.makers import make_channel, record
from sessions_core.domain.channel import (
    Appended,
    Channel,
    Io,
    Record,
)
from sessions_core.domain.guard import UNTOUCHED, Guard
from sessions_core.ports.channel_log import ChannelLog

OUT = make_channel(io=Io.OUT)
LIVE = Guard.live(1)
START_MS = 1_767_225_600_000
WINDOW_RECORDS = 1000
WINDOW = timedelta(minutes=15)
ALL = 100_000
FENCE = (("", "fence"),)


async def put(log: ChannelLog, channel: Channel, *bodies: str, guard: Guard = UNTOUCHED) -> list[Appended]:
    return await log.append(channel, [record(body) for body in bodies], guard=guard)


async def stored(log: ChannelLog, channel: Channel = OUT) -> list[str]:
    """Return the bodies of all records that are kept, without those that some logs write when a guard changes."""
    return bodies_of([record for record in (await log.read(channel, 0, ALL)).records if record.headers != FENCE])


def bodies_of(found: Sequence[Record]) -> list[str]:
    return [record.body.decode() for record in found]


def seqs_of(found: Sequence[Record]) -> list[int]:
    return [record.seq for record in found]


async def guard_with(log: ChannelLog, guard: Guard, channel: Channel = OUT) -> None:
    change = await log.set_guard(channel, guard, expect=UNTOUCHED)
    assert change.done
