"""The ends of channels as the writer knows them, so that an append need not ask the disk for them."""

from __future__ import annotations

import sqlite3
from typing import Final

import attrs

from sessions_adapters.sqlite.values import bindable, unbound
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.guard import UNTOUCHED, Guard
from sessions_core.domain.ids import AddressingKey, EnvironmentId

FIND_CHANNEL: Final = """
    select id, guard, first_seq, swept_seq from channel
    where environment = ? and key = ? and io = ? and name = ?
"""
FIND_LAST: Final = "select seq, timestamp from log where channel = ? order by seq desc limit 1"
INSERT_CHANNEL: Final = "insert into channel (environment, key, io, name, guard) values (?, ?, ?, ?, ?) returning id"
NO_NAME: Final = b""

Address = tuple[str | bytes, str | bytes, str, str | bytes]


def address_of(channel: Channel) -> Address:
    """Return what a channel is found by. A name is a text, so the empty blob is none."""
    name = NO_NAME if channel.name is None else bindable(channel.name)
    return (bindable(channel.environment_id), bindable(channel.key), channel.io.value, name)


def channel_of(row: sqlite3.Row) -> Channel:
    """Return the channel whose address is in *row*."""
    name = None if row["name"] == NO_NAME else unbound(row["name"])
    return Channel(EnvironmentId(unbound(row["environment"])), AddressingKey(unbound(row["key"])), Io(row["io"]), name)


@attrs.define(eq=False)
class Head:
    """The end of one channel.

    Attributes:
        id: 0 until the channel has a row.
        prune_at: The next seq at which part ids outside the window are looked for.
    """

    id: int
    guard: Guard
    next_seq: int
    first_seq: int
    swept_seq: int
    timestamp: int
    prune_at: int


@attrs.define(eq=False)
class Heads:
    """Heads of the channels that were written to lately.

    True for what the writer's transaction sees: after a rollback, :meth:`forget` them. Two generations make it roughly
    least recently used without a note of every use: when the young one is full it becomes the old one, and what is
    needed again returns from there.
    """

    _connection: sqlite3.Connection
    _prune_step: int
    _size: int
    _young: dict[Channel, Head] = attrs.field(init=False, factory=dict)
    _old: dict[Channel, Head] = attrs.field(init=False, factory=dict)

    def find(self, channel: Channel) -> Head:
        """Return the head of *channel*, from the disk if need be."""
        head = self._young.get(channel)
        if head is None:
            head = self._old.get(channel) or self._load(channel)
            self._keep(channel, head)
        return head

    def forget(self) -> None:
        """Believe the disk again."""
        self._young, self._old = {}, {}

    def ensure_row(self, channel: Channel, head: Head) -> None:
        """Make the channel's row, unless it has one."""
        if not head.id:
            values = (*address_of(channel), str(head.guard))
            head.id = self._connection.execute(INSERT_CHANNEL, values).fetchone()[0]

    def _keep(self, channel: Channel, head: Head) -> None:
        if len(self._young) * 2 >= self._size:
            self._young, self._old = {}, self._young
        self._young[channel] = head

    def _load(self, channel: Channel) -> Head:
        row = self._connection.execute(FIND_CHANNEL, address_of(channel)).fetchone()
        if row is None:
            return Head(0, UNTOUCHED, 0, 0, 0, 0, self._prune_step)
        last = self._connection.execute(FIND_LAST, (row["id"],)).fetchone()
        next_seq, timestamp = (last["seq"] + 1, last["timestamp"]) if last else (row["first_seq"], 0)
        # A whole number of steps: channels are pruned at the same seqs however often their heads were forgotten.
        prune_at = (next_seq // self._prune_step + 1) * self._prune_step
        guard = Guard.parse(row["guard"])
        return Head(row["id"], guard, next_seq, row["first_seq"], row["swept_seq"], timestamp, prune_at)
