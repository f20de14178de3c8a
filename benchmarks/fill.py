"""Channels that have become old, without waiting for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.progress import Progress
from sessions_adapters import sqlite
from sessions_adapters.profiles import DATABASE_NAME
from sessions_adapters.system import SystemClock
from sessions_core.domain.channel import TURN_COMPLETE, Channel, Io, NewRecord, control_record, data_record
from sessions_core.domain.ids import AddressingKey, EnvironmentId, PartId
from sessions_core.ports.channel_log import ChannelLog

PART_WINDOW: Final = 1000
_BATCH: Final = 10_000
_TEXT: Final = "x" * 100


async def fill(data: Path, environment: EnvironmentId, sizes: dict[str, int], progress: Progress) -> None:
    """Fill both channels of sessions up to *sizes*; ``out`` ends with a completed turn."""
    config = sqlite.SqliteConfig(path=data / DATABASE_NAME)
    async with sqlite.open_database(config, clock=SystemClock()) as database:
        log = sqlite.SqliteChannelLog(database)
        for name, size in sizes.items():
            for io in Io:
                await _fill(log, Channel(environment, AddressingKey(name), io), size, progress)


async def _fill(log: ChannelLog, channel: Channel, size: int, progress: Progress) -> None:
    guard = (await log.tail(channel)).guard
    done = 0
    for batch in _batches(size, channel.io):
        await log.append(channel, batch, guard=guard)
        done += len(batch)
        progress.say(f"filling {channel.io} of {channel.key}: {done} of {size} records")


def _batches(size: int, io: Io) -> Iterator[Sequence[NewRecord]]:
    """Yield *size* records. Only the latest ones have part ids: those of older ones would have been forgotten."""
    last = [control_record(TURN_COMPLETE)] if io is Io.OUT else []
    recent = min(PART_WINDOW, size) - len(last)
    plain = size - recent - len(last)
    old = data_record(_TEXT, PartId("old"), dedupe=False)
    for start in range(0, plain, _BATCH):
        yield [old] * min(_BATCH, plain - start)
    yield [*(data_record(_TEXT, PartId(f"recent-{number}")) for number in range(recent)), *last]
