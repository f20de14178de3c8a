"""How much an inbox holds, and what its watchers see of the rest."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import attrs
import pytest

from sessions_core.domain.channel import Batch, NewRecord, Record, control_record, data_record
from sessions_core.domain.ids import PartId
from sessions_core.inbox import PENDING_BYTES, PENDING_RECORDS, Inbox, Message
from sessions_core.services.channel_service import Reading

MEBIBYTE = 1_048_576


def numbered(records: Sequence[NewRecord]) -> list[Record]:
    return [Record(seq, 0, record.body, record.headers) for seq, record in enumerate(records)]


def texts(count: int, size: int = 1) -> list[Record]:
    return numbered([data_record("x" * size, PartId(str(number))) for number in range(count)])


@attrs.define
class Channel:
    """A channel that notes how far it was read, by whom it is followed and by whom it is asked."""

    records: list[Record]
    first_kept: int = 0
    followed_to: int = 0
    reads: int = 0

    async def next(self) -> Batch:
        if self.followed_to == len(self.records):
            await anyio.sleep_forever()
        record = self.records[self.followed_to]
        self.followed_to += 1
        return Batch((record,), len(self.records))

    async def read_again(self, start: int) -> list[Record]:
        self.reads += 1
        return self.records[max(start, self.first_kept) :][:300]


@asynccontextmanager
async def inbox_of(channel: Channel, watcher: Callable[[Message], None] | None = None) -> AsyncGenerator[Inbox]:
    async def leave(read_to: int) -> bool:
        return True

    reading = cast("Reading", channel)
    inbox = Inbox(-1, reading, channel.read_again, leave, anyio.Event())
    if watcher is not None:
        inbox.watch(watcher)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(inbox.pump)
        await anyio.wait_all_tasks_blocked()
        yield inbox
        tasks.cancel_scope.cancel()


async def take_all(inbox: Inbox) -> list[int]:
    taken: list[int] = []
    while (message := await inbox.wait(0.01)) is not None:
        taken.append(message.seq)
        following: Any = inbox.peek()
        assert following is None or following.seq > message.seq
        assert inbox.read_to >= message.seq
        await anyio.wait_all_tasks_blocked()
    return taken


@pytest.mark.parametrize(
    ("count", "size", "held"),
    [(3 * PENDING_RECORDS, 1, PENDING_RECORDS), (20, MEBIBYTE, PENDING_BYTES // MEBIBYTE)],
    ids=["records", "bytes"],
)
async def test_what_nobody_watches_is_not_read_before_there_is_room(count: int, size: int, held: int) -> None:
    channel = Channel(texts(count, size))
    async with inbox_of(channel) as inbox:
        assert channel.followed_to == held + 1, "and one that waits"
        assert await take_all(inbox) == list(range(count))
    assert channel.reads == 0


@pytest.mark.parametrize(("count", "size"), [(3 * PENDING_RECORDS, 1), (20, MEBIBYTE)], ids=["records", "bytes"])
async def test_a_watcher_sees_what_there_is_no_room_for_and_each_message_is_taken_once(count: int, size: int) -> None:
    seen: list[int] = []
    channel = Channel(texts(count, size))
    async with inbox_of(channel, lambda message: seen.append(message.seq)) as inbox:
        assert seen == list(range(count))
        assert await take_all(inbox) == list(range(count))
    assert seen == list(range(count)), "each is shown once"
    assert channel.reads < 20


async def test_a_watcher_that_comes_late_sees_what_waits_and_lets_the_reading_go_on() -> None:
    seen: list[int] = []
    channel = Channel(texts(2 * PENDING_RECORDS))
    async with inbox_of(channel) as inbox:
        inbox.watch(lambda message: seen.append(message.seq))
        await anyio.wait_all_tasks_blocked()
    assert seen == list(range(2 * PENDING_RECORDS))


async def test_a_message_that_is_skipped_is_not_taken_wherever_it_is() -> None:
    channel = Channel(texts(2 * PENDING_RECORDS))
    skipped = {0, 5, PENDING_RECORDS - 1, PENDING_RECORDS, 2 * PENDING_RECORDS - 1}
    async with inbox_of(channel, lambda message: None) as inbox:
        for seq in skipped:
            inbox.skip(seq)
        assert inbox.read_to == 0
        assert await take_all(inbox) == [seq for seq in range(2 * PENDING_RECORDS) if seq not in skipped]
        assert inbox.read_to == 2 * PENDING_RECORDS - 1


async def test_records_of_other_kinds_count_as_read_also_beyond_the_bound() -> None:
    records = [data_record("x", PartId(str(number))) for number in range(PENDING_RECORDS + 1)]
    channel = Channel(numbered([*records, control_record("other"), records[0], control_record("other")]))
    async with inbox_of(channel, lambda message: None) as inbox:
        assert await take_all(inbox) == [*range(PENDING_RECORDS + 1), PENDING_RECORDS + 2]
        assert inbox.read_to == PENDING_RECORDS + 3


async def test_what_is_no_longer_kept_is_not_waited_for() -> None:
    channel = Channel(texts(2 * PENDING_RECORDS))
    async with inbox_of(channel, lambda message: None) as inbox:
        channel.first_kept = 3 * PENDING_RECORDS
        with anyio.fail_after(60):
            assert await take_all(inbox) == list(range(PENDING_RECORDS))
        assert inbox.read_to == 2 * PENDING_RECORDS - 1
