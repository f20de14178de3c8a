"""The registry of waits in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import attrs

from sessions_adapters.postgres.announcer import encode
from sessions_adapters.postgres.database import PostgresDatabase
from sessions_adapters.postgres.values import channel_key
from sessions_adapters.postgres.waits import MARK
from sessions_core.domain.channel import Channel
from sessions_core.domain.ids import WaitpointId
from sessions_core.ports.waitpoint_store import WaitRegistry

# The notification goes with the commit, so that nobody hears of it later than the one who registers. It carries no weight:
# waits are rare beside appends.
REGISTER: Final = """
    with registered as (
        insert into wait_member (channel, waitpoint_id, keep_until) values ($1, $2, now_or($4) + $3)
        on conflict (channel, waitpoint_id) do update
            set keep_until = greatest(wait_member.keep_until, excluded.keep_until)
        returning 1
    )
    select pg_notify($5, $6) from registered
"""
DRAIN: Final = "delete from wait_member where channel = $1 returning waitpoint_id, keep_until >= now_or($2) as is_kept"
UNREGISTER: Final = "delete from wait_member where channel = $1 and waitpoint_id = $2"


@attrs.define
class PostgresWaitRegistry(WaitRegistry):
    """Keeps in a table who is to be woken by an append, in whatever process that happens.

    A process asks the table only about channels of which it has heard that somebody waits. An append that is faster than
    the notification of a registration elsewhere leaves the wake-up to the sweep.
    """

    _db: PostgresDatabase

    async def register(self, channel: Channel, waitpoint_id: WaitpointId, keep: timedelta) -> None:
        key = channel_key(channel)
        (news,) = encode(self._db.name, {MARK + key: 1})
        try:
            await self._db.change(REGISTER, key, waitpoint_id, keep, self._db.at(), self._db.topic, news)
        finally:
            # Afterwards, or a drain that came too early would have removed it again. Before we return, or an append that
            # comes after the caller's next look at the channel would not find it.
            self._db.waits.add(key)

    async def drain(self, channel: Channel) -> Sequence[WaitpointId]:
        key = channel_key(channel)
        if not self._db.waits.may_have(key):
            return ()  # every append asks, and nearly always nobody waits
        self._db.waits.remove(key)  # before the question: who registers during it is added again
        try:
            rows = await self._db.change(DRAIN, key, self._db.at())
        except BaseException:
            self._db.waits.add(key)
            raise
        # The longest wait keeps all members of the channel.
        return [row["waitpoint_id"] for row in rows] if any(row["is_kept"] for row in rows) else ()

    async def unregister(self, channel: Channel, waitpoint_id: WaitpointId) -> None:
        await self._db.execute(UNREGISTER, channel_key(channel), waitpoint_id)
