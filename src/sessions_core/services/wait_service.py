"""Waiting for the next record of a channel, and waking those who wait.

The waitpoint's row is the truth. The registry only says whom an append has to wake; a lost entry is found by the sweep,
which compares waiting rows with the channel's tail. The race between "nothing there yet" and "now I am registered" is
closed by looking once more after registering.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import anyio
import attrs

from sessions_core.domain.channel import Appended, Channel, Envelope, Io, NewRecord, Record, RecordKind
from sessions_core.domain.events import WaitpointCompleted
from sessions_core.domain.ids import WAITPOINT_PREFIX, AddressingKey, EnvironmentId, RunId, WaitpointId, is_friendly_id
from sessions_core.domain.session import Session
from sessions_core.domain.trigger_config import check_tags
from sessions_core.domain.waitpoint import (
    DEFAULT_REGISTRATION,
    MAX_IDEMPOTENCY_KEY,
    Completion,
    Waitpoint,
    WaitpointStatus,
    parse_idempotency_ttl,
    parse_timeout,
    timeout_of,
)
from sessions_core.errors import (
    InvalidError,
    RunNotFoundError,
    SessionNotFoundError,
    WaitpointNotFoundError,
)
from sessions_core.ports.channel_log import ChannelLog
from sessions_core.ports.clock import Clock, Ids
from sessions_core.ports.observer import Observer
from sessions_core.ports.run_store import RunStore
from sessions_core.ports.session_store import SessionStore
from sessions_core.ports.waitpoint_store import WaitpointCreation, WaitpointStore, WaitRegistry

RACE_CHECK_RECORDS: Final = 16


def _tags(tags: object) -> tuple[str, ...]:
    return check_tags(tags, field="tags")


@attrs.frozen(kw_only=True)
class WaitRequest:
    """What a run asks for when it wants to wait.

    Attributes:
        session: Either id of the session, or an external id that has no session yet.
        timeout: A date or a compound duration as text; unreadable means no timeout.
        after_seq: Records up to this one are known to the run; None waits for the next one from now on.
    """

    session: str
    io: Io
    timeout: str | None = None
    idempotency_key: str | None = None
    idempotency_ttl: str | None = None
    tags: tuple[str, ...] = attrs.field(default=(), converter=_tags)
    after_seq: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.idempotency_key is not None and len(self.idempotency_key) > MAX_IDEMPOTENCY_KEY:
            raise InvalidError("idempotencyKey", f"must be {MAX_IDEMPOTENCY_KEY} characters or less")


@attrs.define(kw_only=True)
class WaitService:
    """Creates, wakes, awaits and expires waitpoints."""

    store: SessionStore
    runs: RunStore
    log: ChannelLog
    waitpoints: WaitpointStore
    registry: WaitRegistry
    clock: Clock
    ids: Ids
    observer: Observer

    async def create(self, environment_id: EnvironmentId, run_id: RunId, request: WaitRequest) -> WaitpointCreation:
        """Create a waitpoint for *run_id*, or get the one with the same unexpired idempotency key.

        If a record after ``after_seq`` is there already, the waitpoint is completed with the first such record.

        Raises:
            RunNotFoundError: This environment has no such run.
            SessionNotFoundError: No session with this friendly id. (An unknown external id is accepted.)
        """
        if await self.runs.find(environment_id, run_id) is None:
            raise RunNotFoundError(run_id)
        channel = await self._channel(environment_id, request)
        creation = await self.waitpoints.create(await self._waitpoint(run_id, channel, request))
        if creation.waitpoint.is_waiting:
            await self.arm(creation.waitpoint)
        return creation

    async def get(self, environment_id: EnvironmentId, waitpoint_id: WaitpointId) -> Waitpoint:
        """Return the waitpoint.

        Raises:
            WaitpointNotFoundError: This environment has no such waitpoint.
        """
        waitpoint = await self.waitpoints.find(environment_id, waitpoint_id)
        if waitpoint is None:
            raise WaitpointNotFoundError(waitpoint_id)
        return waitpoint

    async def list_waiting(self, session: Session, limit: int) -> list[Waitpoint]:
        """Return who waits on *session*'s channels: ``in`` first, then ``out``, at most *limit* each."""
        return [
            waitpoint for io in Io for waitpoint in await self.waitpoints.list_waiting_on(session.channel(io), limit)
        ]

    async def wait(self, environment_id: EnvironmentId, waitpoint_id: WaitpointId, timeout: timedelta) -> Waitpoint:
        """Return the waitpoint once it has ended, or as it is (still waiting) after *timeout*.

        Raises:
            WaitpointNotFoundError: This environment has no such waitpoint.
        """
        with anyio.move_on_after(timeout.total_seconds()):
            return await self.waitpoints.wait(environment_id, waitpoint_id)
        return await self.get(environment_id, waitpoint_id)

    async def arm(self, waitpoint: Waitpoint) -> bool:
        """Register *waitpoint* for wake-ups, then look whether its record has come already.

        Returns:
            Whether it was completed.
        """
        await self.registry.register(waitpoint.channel, waitpoint.id, self._keep(waitpoint))
        record = await self._first_visible(waitpoint)
        if record is None:
            return False
        await self.registry.unregister(waitpoint.channel, waitpoint.id)
        return await self._complete(waitpoint.id, _completion(record.body, record.seq))

    async def wake(self, channel: Channel, records: Sequence[NewRecord], appended: Sequence[Appended]) -> None:
        """Complete whoever waits on *channel*, each with the first record after the one it knows.

        That need not be one of those just appended: another append may have been stored before and not have come to
        this point yet, or the waiter may know this one already.
        """
        first = next(((record, place) for record, place in zip(records, appended, strict=True) if place.is_new), None)
        if first is None:
            return
        record, place = first
        for waitpoint_id in await self.registry.drain(channel):
            waitpoint = await self.waitpoints.find(channel.environment_id, waitpoint_id)
            if waitpoint is None or not waitpoint.is_waiting:
                continue
            if place.seq == waitpoint.after_seq + 1:
                await self._complete(waitpoint_id, _completion(record.body, place.seq))
            else:
                await self.arm(waitpoint)

    async def expire(self, waitpoint: Waitpoint) -> bool:
        """Let *waitpoint* time out, unless its record has come and only the wake-up was lost."""
        await self.registry.unregister(waitpoint.channel, waitpoint.id)
        record = await self._first_visible(waitpoint)
        end = timeout_of(waitpoint) if record is None else _completion(record.body, record.seq)
        return await self._complete(waitpoint.id, end)

    async def _complete(self, waitpoint_id: WaitpointId, completion: Completion) -> bool:
        done = await self.waitpoints.complete(waitpoint_id, completion)
        if done:
            timed_out = completion.status is WaitpointStatus.TIMED_OUT
            self.observer(WaitpointCompleted(waitpoint_id=waitpoint_id, timed_out=timed_out))
        return done

    async def _first_visible(self, waitpoint: Waitpoint) -> Record | None:
        start = waitpoint.after_seq + 1
        while True:
            batch = await self.log.read(waitpoint.channel, start, RACE_CHECK_RECORDS)
            if not batch.records:
                return None
            visible = next((r for r in batch.records if r.kind is not RecordKind.COMMAND), None)
            if visible is not None:
                return visible
            start = batch.records[-1].seq + 1

    async def _channel(self, environment_id: EnvironmentId, request: WaitRequest) -> Channel:
        session = await self.store.find(environment_id, request.session)
        if session is None and is_friendly_id(request.session):
            raise SessionNotFoundError(request.session)
        return Channel(environment_id, session.key if session else AddressingKey(request.session), request.io)

    async def _waitpoint(self, run_id: RunId, channel: Channel, request: WaitRequest) -> Waitpoint:
        now = self.clock.now()
        after = request.after_seq
        return Waitpoint(
            id=WaitpointId(WAITPOINT_PREFIX + self.ids.new()),
            run_id=run_id,
            channel=channel,
            created_at=now,
            after_seq=(await self.log.tail(channel)).next_seq - 1 if after is None else max(after, -1),
            expires_at=parse_timeout(request.timeout, now),
            idempotency_key=request.idempotency_key,
            idempotency_expires_at=parse_idempotency_ttl(request.idempotency_ttl, now),
            tags=request.tags,
        )

    def _keep(self, waitpoint: Waitpoint) -> timedelta:
        if waitpoint.expires_at is None:
            return DEFAULT_REGISTRATION
        return max(waitpoint.expires_at - self.clock.now(), timedelta(seconds=1))


def _completion(body: bytes, seq: int) -> Completion:
    envelope = Envelope.parse(body)
    return Completion(WaitpointStatus.COMPLETED, "" if envelope is None else envelope.data, seq)
