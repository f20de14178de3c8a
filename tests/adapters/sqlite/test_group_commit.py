"""Many writes, one commit; and each of them for itself."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta

import anyio
import attrs
import pytest

from sessions_adapters.sqlite import SqliteChannelLog, SqliteConfig, SqliteDatabase, open_database
from sessions_core.domain.channel import Appended, Channel, Io, NewRecord
from sessions_core.domain.guard import SEALED, UNTOUCHED, Guard
from sessions_core.domain.ids import AddressingKey, PartId
from sessions_core.errors import ChannelUnavailableError, GuardMismatchError, StoreUnavailableError
from sessions_core.testing import ManualClock


def named(channel: Channel, name: str) -> Channel:
    return attrs.evolve(channel, key=AddressingKey(name))


def record(text: str, part: str | None = None) -> NewRecord:
    return NewRecord(text.encode(), part_id=None if part is None else PartId(part))


@pytest.fixture
async def statements(db: SqliteDatabase) -> AsyncIterator[list[str]]:
    """What the writer does from now on."""
    seen: list[str] = []
    await db.write(lambda connection: connection.set_trace_callback(seen.append))
    yield seen
    await db.write(lambda connection: connection.set_trace_callback(None))


async def bodies(log: SqliteChannelLog, channel: Channel) -> list[bytes]:
    return [record.body for record in (await log.read(channel, 0, 10_000)).records]


async def test_concurrent_appends_share_commits(log: SqliteChannelLog, channel: Channel, statements: list[str]) -> None:
    channels = [named(channel, f"chat {number}") for number in range(20)]
    answers = await asyncio.gather(
        *(log.append(channels[i % 20], [record(f"{i}", f"part {i}")], guard=UNTOUCHED) for i in range(400))
    )
    assert [answer for [answer] in answers] == [Appended(i // 20) for i in range(400)]
    assert sum("commit" in statement.lower() for statement in statements) <= 40
    assert await bodies(log, channels[3]) == [f"{3 + 20 * i}".encode() for i in range(20)]


async def test_a_group_has_a_largest_size(config: SqliteConfig, clock: ManualClock, channel: Channel) -> None:
    async with open_database(attrs.evolve(config, group_size=10), clock=clock) as db:
        log = SqliteChannelLog(db)
        await asyncio.gather(*(log.append(channel, [record(f"{i}")], guard=UNTOUCHED) for i in range(95)))
        assert (await log.tail(channel)).next_seq == 95


async def test_one_append_that_fails_does_not_hurt_the_others(log: SqliteChannelLog, channel: Channel) -> None:
    await log.append(channel, [record("a", "a")], guard=UNTOUCHED)
    answers = await asyncio.gather(
        log.append(channel, [record("b", "b")], guard=UNTOUCHED),
        log.append(channel, [record("c")], guard=Guard.live(7)),
        log.append(channel, [record("a again", "a"), record("d", "d")], guard=UNTOUCHED),
        log.append(channel, [NewRecord("no bytes", part_id=None)], guard=UNTOUCHED),  # type: ignore[arg-type]
        log.append(channel, [NewRecord(object(), part_id=None)], guard=UNTOUCHED),  # type: ignore[arg-type]
        log.append(channel, [record("e", "\udcff")], guard=UNTOUCHED),
        log.append(named(channel, "\udcff"), [record("f", "b")], guard=UNTOUCHED),
        return_exceptions=True,
    )
    good = [answers[i] for i in (0, 2, 5, 6)]
    assert isinstance(answers[1], GuardMismatchError)
    assert isinstance(answers[4], ChannelUnavailableError)
    assert good[0] == [Appended(1)]
    assert good[1] == [Appended(0, is_new=False), Appended(2)]
    assert good[3] == [Appended(0)]
    assert await bodies(log, named(channel, "\udcff")) == [b"f"]
    assert (await bodies(log, channel))[:3] == [b"a", b"b", b"d"]


async def test_work_that_fails_does_not_hurt_the_others(
    db: SqliteDatabase, log: SqliteChannelLog, channel: Channel
) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("insert into used_token values ('env', 'half', 0)")
        connection.execute("insert into nowhere values (1)")

    answers = await asyncio.gather(
        log.append(channel, [record("a")], guard=UNTOUCHED),
        db.write(fail),
        log.set_guard(channel, Guard.live(1), expect=UNTOUCHED),
        log.append(channel, [record("b")], guard=UNTOUCHED),
        return_exceptions=True,
    )
    assert isinstance(answers[1], StoreUnavailableError)
    assert isinstance(answers[1].__cause__, sqlite3.OperationalError)
    assert await db.read(lambda c: c.execute("select count(*) from used_token").fetchone()[0]) == 0
    assert await bodies(log, channel) == [b"a", b"b"]
    assert (await log.tail(channel)).guard == Guard.live(1)


async def test_equal_part_ids_in_one_group_are_one_record(log: SqliteChannelLog, channel: Channel) -> None:
    answers = await asyncio.gather(
        *(log.append(channel, [record(f"{i}", "same")], guard=UNTOUCHED) for i in range(30)),
        log.append(channel, [record("x", "twice"), record("y", "twice")], guard=UNTOUCHED),
    )
    assert sum(answer.is_new for [answer] in answers[:30]) == 1
    assert {answer.seq for [answer] in answers[:30]} == {0}
    assert answers[30] == [Appended(1), Appended(1, is_new=False)]
    assert await bodies(log, channel) == [b"0", b"x"]


async def test_a_part_id_leaves_the_window_when_it_is_both_old_and_far_back(
    config: SqliteConfig, clock: ManualClock, channel: Channel
) -> None:
    async with open_database(attrs.evolve(config, part_window_records=10), clock=clock) as db:
        log = SqliteChannelLog(db)
        for i in range(50):
            await log.append(channel, [record("first", f"{i}")], guard=UNTOUCHED)
        assert await log.append(channel, [record("?", "0")], guard=UNTOUCHED) == [Appended(0, is_new=False)]
        clock.advance(timedelta(minutes=15, milliseconds=1))
        assert await log.append(channel, [record("?", "45")], guard=UNTOUCHED) == [Appended(45, is_new=False)]
        assert await log.append(channel, [record("second", "39")], guard=UNTOUCHED) == [Appended(50)]
        assert await log.append(channel, [record("?", "39")], guard=UNTOUCHED) == [Appended(50, is_new=False)]
        await log.append(channel, [record("?", f"new {i}") for i in range(60)], guard=UNTOUCHED)
        count = await db.read(lambda c: c.execute("select count(*) from part").fetchone()[0])
        assert count < 100, "part ids outside the window are deleted"


async def test_part_ids_outlive_a_trim_and_a_seal(log: SqliteChannelLog, channel: Channel) -> None:
    await log.append(channel, [record("a", "a"), record("b", "b")], guard=UNTOUCHED)
    assert await log.trim(channel, 99, guard=UNTOUCHED) == 2
    await log.set_guard(channel, SEALED, expect=UNTOUCHED)
    assert await log.append(channel, [record("a", "a")], guard=UNTOUCHED) == [Appended(0, is_new=False)]
    with pytest.raises(GuardMismatchError):
        await log.append(channel, [record("a", "a"), record("c", "c")], guard=UNTOUCHED)
    with pytest.raises(GuardMismatchError):
        await log.append(channel, [record("c", "c")], guard=SEALED)


async def test_heads_that_were_forgotten_are_found_on_the_disk(
    config: SqliteConfig, clock: ManualClock, channel: Channel
) -> None:
    async with open_database(attrs.evolve(config, known_channels=4), clock=clock) as db:
        log = SqliteChannelLog(db)
        channels = [
            attrs.evolve(named(channel, f"{i}"), io=io, name=name)
            for i in range(5)
            for io in Io
            for name in (None, "", "x")
        ]
        for turn in range(5):
            for each in channels:
                guard = UNTOUCHED if turn == 0 else Guard.live(turn)
                assert await log.append(each, [record("a", f"{turn}")], guard=guard) == [Appended(turn)]
                assert (await log.set_guard(each, Guard.live(turn + 1), expect=guard, if_tail=turn + 1)).done


async def test_seqs_go_on_after_everything_was_trimmed(
    config: SqliteConfig, clock: ManualClock, channel: Channel
) -> None:
    async with open_database(config, clock=clock) as db:
        log = SqliteChannelLog(db)
        await log.append(channel, [record("a")] * 5, guard=UNTOUCHED)
        assert await log.trim(channel, 10**30, guard=UNTOUCHED) == 5
    async with open_database(config, clock=clock) as db:
        log = SqliteChannelLog(db)
        tail = await log.tail(channel)
        assert (tail.first_seq, tail.next_seq) == (5, 6)
        assert await log.append(channel, [record("b")], guard=UNTOUCHED) == [Appended(6)]


async def test_a_long_trim_goes_on_after_a_restart(config: SqliteConfig, clock: ManualClock, channel: Channel) -> None:
    async with open_database(config, clock=clock) as db:
        log = SqliteChannelLog(db)
        await log.append(channel, [record("a")] * 5000, guard=UNTOUCHED)
        await log.trim(channel, 4990, guard=UNTOUCHED)
        assert [r.seq for r in (await log.read(channel, 0, 3)).records] == [4990, 4991, 4992]
        assert [r.seq for r in await log.read_back(channel, 4992, 9)] == [4991, 4990]
    async with open_database(config, clock=clock) as db:
        with anyio.fail_after(10):
            while await db.read(lambda c: c.execute("select count(*) from log").fetchone()[0]) > 11:
                await asyncio.sleep(0.001)
        assert len((await SqliteChannelLog(db).read(channel, 0, 100)).records) == 11
