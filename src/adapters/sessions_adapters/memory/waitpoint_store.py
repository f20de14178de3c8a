"""Waitpoints in memory, and the registry of who waits on a channel."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import anyio
import attrs
from anyio.lowlevel import checkpoint

from sessions_core.domain.channel import Channel
from sessions_core.domain.ids import EnvironmentId, WaitpointId
from sessions_core.domain.session import to_milliseconds
from sessions_core.domain.waitpoint import Completion, Waitpoint
from sessions_core.errors import WaitpointNotFoundError
from sessions_core.ports.clock import Clock
from sessions_core.ports.waitpoint_store import WaitpointCreation, WaitpointStore, WaitRegistry


@attrs.define(eq=False)
class InMemoryWaitpointStore(WaitpointStore):
    """Keeps waitpoints in dictionaries.

    A waiter waits for the waitpoint's event. Nothing can run between looking at the row and waiting, so no wake-up is
    lost.
    """

    _clock: Clock
    _rows: dict[WaitpointId, Waitpoint] = attrs.field(init=False, factory=dict, repr=False)
    _keys: dict[tuple[EnvironmentId, str], WaitpointId] = attrs.field(init=False, factory=dict, repr=False)
    _ended: dict[WaitpointId, anyio.Event] = attrs.field(init=False, factory=dict, repr=False)

    async def create(self, waitpoint: Waitpoint) -> WaitpointCreation:
        await checkpoint()
        stored = self._find_by_key(waitpoint)
        if stored is not None:
            return WaitpointCreation(stored, is_cached=True)
        self._rows[waitpoint.id] = waitpoint
        if waitpoint.idempotency_key is not None:
            self._keys[waitpoint.channel.environment_id, waitpoint.idempotency_key] = waitpoint.id
        return WaitpointCreation(waitpoint, is_cached=False)

    def _find_by_key(self, waitpoint: Waitpoint) -> Waitpoint | None:
        if waitpoint.idempotency_key is None:
            return None
        stored_id = self._keys.get((waitpoint.channel.environment_id, waitpoint.idempotency_key))
        stored = None if stored_id is None else self._rows[stored_id]
        if stored is None or _is_past(stored.idempotency_expires_at, self._clock.now()):
            return None
        return stored

    async def find(self, environment_id: EnvironmentId, waitpoint_id: WaitpointId) -> Waitpoint | None:
        await checkpoint()
        return self._find(environment_id, waitpoint_id)

    def _find(self, environment_id: EnvironmentId, waitpoint_id: WaitpointId) -> Waitpoint | None:
        row = self._rows.get(waitpoint_id)
        return row if row is not None and row.channel.environment_id == environment_id else None

    async def complete(self, waitpoint_id: WaitpointId, completion: Completion) -> bool:
        await checkpoint()
        row = self._rows.get(waitpoint_id)
        if row is None or not row.is_waiting:
            return False
        self._rows[waitpoint_id] = attrs.evolve(
            row,
            status=completion.status,
            output=completion.output,
            seq=completion.seq,
            completed_at=to_milliseconds(self._clock.now()),
        )
        if waitpoint_id in self._ended:
            self._ended.pop(waitpoint_id).set()
        return True

    async def wait(self, environment_id: EnvironmentId, waitpoint_id: WaitpointId) -> Waitpoint:
        await checkpoint()
        row = self._find(environment_id, waitpoint_id)
        if row is None:
            raise WaitpointNotFoundError(waitpoint_id)
        if row.is_waiting:
            await self._ended.setdefault(waitpoint_id, anyio.Event()).wait()
        return self._rows[waitpoint_id]

    async def list_waiting(self, after: WaitpointId | None, limit: int) -> list[Waitpoint]:
        await checkpoint()
        waiting = [row for row in self._rows.values() if row.is_waiting and (after is None or row.id > after)]
        return sorted(waiting, key=lambda row: row.id)[:limit]

    async def list_waiting_on(self, channel: Channel, limit: int) -> list[Waitpoint]:
        await checkpoint()
        waiting = [row for row in self._rows.values() if row.is_waiting and row.channel == channel]
        return sorted(waiting, key=lambda row: row.id)[:limit]

    async def list_due(self, limit: int) -> list[Waitpoint]:
        await checkpoint()
        now = self._clock.now()
        due = [row for row in self._rows.values() if row.is_waiting and _is_past(row.expires_at, now)]
        return sorted(due, key=lambda row: (row.expires_at, row.id))[:limit]


def _is_past(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment <= now


@attrs.define(eq=False)
class _Members:
    """Who waits on one channel, in the order of their registration, and how long that is remembered."""

    kept_until: datetime
    ids: dict[WaitpointId, None] = attrs.field(factory=dict)


@attrs.define(eq=False)
class InMemoryWaitRegistry(WaitRegistry):
    """Remembers the waits that were registered in this process."""

    _clock: Clock
    _channels: dict[Channel, _Members] = attrs.field(init=False, factory=dict, repr=False)

    async def register(self, channel: Channel, waitpoint_id: WaitpointId, keep: timedelta) -> None:
        await checkpoint()
        now = self._clock.now()
        members = self._channels.setdefault(channel, _Members(now))
        if members.kept_until < now:
            members.ids.clear()
        members.kept_until = max(members.kept_until, now + keep)
        members.ids[waitpoint_id] = None

    async def drain(self, channel: Channel) -> Sequence[WaitpointId]:
        if channel not in self._channels:
            return ()  # Every append asks, and nearly always nobody waits: that must not cost a turn of the loop.
        await checkpoint()
        members = self._channels.pop(channel, None)
        return () if members is None or members.kept_until < self._clock.now() else tuple(members.ids)

    async def unregister(self, channel: Channel, waitpoint_id: WaitpointId) -> None:
        await checkpoint()
        members = self._channels.get(channel)
        if members is not None:
            members.ids.pop(waitpoint_id, None)
            if not members.ids:
                del self._channels[channel]
