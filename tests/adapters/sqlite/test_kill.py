"""kill -9 while records are being appended: what was acknowledged is there."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict

import pytest

from sessions_adapters.sqlite import SqliteChannelLog, SqliteConfig, open_database
from sessions_core.domain.channel import Channel, Io, NewRecord
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.domain.ids import AddressingKey, EnvironmentId, PartId
from sessions_core.testing import ManualClock

CHILD = """
import asyncio, sys
from pathlib import Path
from sessions_adapters.sqlite import SqliteChannelLog, SqliteConfig, open_database
from sessions_core.domain.channel import Channel, Io, NewRecord
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.testing import ManualClock

async def write(log, name, life):
    channel = Channel("env_1", name, Io.OUT)
    for number in range(1_000_000):
        part = f"{life} {number}"
        [place] = await log.append(channel, [NewRecord(part.encode(), part_id=part)], guard=UNTOUCHED)
        print(name, place.seq, part, sep=",", flush=True)
        if number % 50 == 49:
            seq = await log.trim(channel, place.seq - 20, guard=UNTOUCHED)
            print(name, seq, "", sep=",", flush=True)

async def main(path, life):
    async with open_database(SqliteConfig(path=Path(path)), clock=ManualClock()) as db:
        log = SqliteChannelLog(db)
        await asyncio.gather(*(write(log, f"chat{i}", life) for i in range(8)))

asyncio.run(main(*sys.argv[1:]))
"""


def run_and_kill(config: SqliteConfig, life: int, lines: int) -> list[str]:
    """Let a process append until it has acknowledged *lines* records, kill it, and return what it said."""
    command = [sys.executable, "-c", CHILD, str(config.path), str(life)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        child.kill()
        said += child.stdout.readlines()
    return [line for line in said if line.endswith("\n")]


@pytest.mark.kill
@pytest.mark.slow
async def test_acknowledged_records_survive_a_kill(config: SqliteConfig, clock: ManualClock) -> None:
    acknowledged: dict[str, dict[int, str]] = defaultdict(dict)
    for life, lines in enumerate((40, 700, 1500)):
        for line in run_and_kill(config, life, lines):
            name, seq, part = line.rstrip("\n").split(",")
            assert int(seq) not in acknowledged[name], "a seq was given twice"
            acknowledged[name][int(seq)] = part
    assert sum(map(len, acknowledged.values())) >= 2240
    async with open_database(config, clock=clock) as db:
        log = SqliteChannelLog(db)
        for name, parts in acknowledged.items():
            channel = Channel(EnvironmentId("env_1"), AddressingKey(name), Io.OUT)
            tail = await log.tail(channel)
            records = (await log.read(channel, 0, 100_000)).records
            assert [record.seq for record in records] == list(range(tail.first_seq, tail.next_seq))
            bodies = {record.seq: record.body for record in records}
            appended = {seq: part for seq, part in parts.items() if part}
            assert max(parts) < tail.next_seq
            assert all(bodies[seq] == part.encode() for seq, part in appended.items() if seq >= tail.first_seq)
            # A retry of the last acknowledged record finds it.
            last = max(appended)
            [again] = await log.append(channel, [NewRecord(b"", part_id=PartId(parts[last]))], guard=UNTOUCHED)
            assert (again.seq, again.is_new) == (last, False)
        check = await db.read(lambda c: c.execute("pragma integrity_check").fetchone()[0])
        assert check == "ok"
