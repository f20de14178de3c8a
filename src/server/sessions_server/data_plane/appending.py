"""Appending what has been read: with the promises of every other append, and in S2's words.

A batch becomes one append to the log through :class:`~sessions_core.services.channel_service.ChannelService`, which minds the
guard, wakes those who wait and tells observers. ``trim`` and ``fence`` are commands of the log itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs

from sessions_core.domain.channel import (
    Appended,
    Envelope,
    Io,
    NewRecord,
    encode_json,
    sanitise_input,
)
from sessions_core.domain.direct import Demand
from sessions_core.domain.guard import Guard
from sessions_core.domain.ids import RESERVED_PARTS
from sessions_core.errors import GuardMismatchError, InvalidError, SessionClosedError, TailMismatchError
from sessions_core.ports.clock import Clock
from sessions_core.services.channel_service import ChannelService
from sessions_core.services.session_service import SessionService
from sessions_server.data_plane.access import Grant
from sessions_server.data_plane.failures import INVALID, PERMISSION_DENIED, S2Error
from sessions_server.data_plane.records import (
    MAX_BYTES,
    MAX_RECORDS,
    Ack,
    AppendInput,
    Operation,
    Position,
    guard_of,
)

_NOBODYS: Final = Guard.live(999_999_999_999)
"""Stands for a fencing token that is no guard, so that it fits nothing."""


@attrs.define
class Appender:
    """Carries out appends that have been allowed."""

    _channels: ChannelService
    _sessions: SessionService
    _clock: Clock

    async def append(self, grant: Grant, given: AppendInput) -> Ack:
        """Carry *given* out; return where it is.

        Raises:
            GuardMismatchError: The fencing token is another one.
            TailMismatchError: The next seq is another one.
            S2Error: It breaks a rule.
            SessionsError: As :meth:`ChannelService.append` says.
        """
        match given.operation:
            case Operation.TRIM:
                return await self._trim(grant, given)
            case Operation.FENCE:
                return await self._fence(grant, given)
            case _:
                return (await self.append_all(grant, (given,)))[0]

    async def append_all(self, grant: Grant, batches: Sequence[AppendInput]) -> list[Ack]:
        """Append several batches of data, which :func:`joined` has found to go together, as one: all or none."""
        records = [record for batch in batches for record in batch.records]
        if grant.channel.io is Io.IN:
            records = [_admissible(record) for record in records]
        demand = Demand(guard=_demanded(batches[0]), tail=batches[0].match_seq_num)
        return list(self._acks(batches, await self._append(grant, records, demand)))

    async def _append(self, grant: Grant, records: Sequence[NewRecord], demand: Demand) -> list[Appended]:
        session, channel = grant.session, grant.channel
        if session is None:
            try:
                return await self._channels.append_early(channel, records, demand=demand)
            except GuardMismatchError:
                if demand.guard is not None:
                    raise
                session = await self._sessions.get(channel.environment_id, channel.key)  # it has begun meanwhile
        return await self._channels.append(session, channel.io, records, tenure=grant.tenure, demand=demand)

    async def _trim(self, grant: Grant, given: AppendInput) -> Ack:
        if given.match_seq_num is not None:
            raise S2Error.of(INVALID, "A trim takes no match_seq_num here")
        seq = await self._channels.trim_directly(
            grant.channel, given.first_kept, session=grant.session, tenure=grant.tenure, guard=_demanded(given)
        )
        return self._ack(seq, 1, self._now())

    async def _fence(self, grant: Grant, given: AppendInput) -> Ack:
        """Set the guard of ``out`` to what the session's row says, and tell readers by a command record.

        Nothing else can be set: a guard that the row does not know would shut out the run that the row knows.
        """
        new, session = guard_of(given.new_token), grant.session
        if new is None or session is None or new != Guard.live(session.epoch):
            raise S2Error.of(PERMISSION_DENIED, "A session can be fenced with the epoch of its current attempt alone")
        tail = await self._channels.tail(grant.channel)
        expected = _demanded(given) or tail.guard
        if tail.guard.is_sealed:
            raise SessionClosedError(session.key)
        if expected != tail.guard:
            raise GuardMismatchError(tail.guard)
        if given.match_seq_num not in (None, tail.next_seq):
            raise TailMismatchError(tail.next_seq)
        log, if_tail = self._channels.log, given.match_seq_num
        if tail.guard != new:
            change = await log.set_guard(grant.channel, new, expect=expected, if_tail=if_tail)
            if not change.done:
                raise GuardMismatchError(change.actual)
            tail, if_tail = attrs.evolve(tail, next_seq=change.tail), None
        try:
            (told,) = await log.append(grant.channel, given.records, guard=new, if_tail=if_tail)
        except InvalidError:  # a log that has told it itself
            return self._ack(tail.next_seq - 1, 1, self._now())
        return self._ack(told.seq, 1, told.timestamp)

    def _acks(self, batches: Iterable[AppendInput], appended: Sequence[Appended]) -> Iterator[Ack]:
        start = 0
        for batch in batches:
            end = start + len(batch.records)
            last = appended[end - 1]
            yield self._ack(last.seq - len(batch.records) + 1, len(batch.records), last.timestamp)
            start = end

    def _ack(self, seq: int, count: int, timestamp: int) -> Ack:
        """Make the ack of *count* records from *seq* on. A batch that was there before is told where it is."""
        timestamp = timestamp or self._now()
        end = Position(max(seq, 0) + count, timestamp)
        return Ack(Position(max(seq, 0), timestamp), end, end)

    def _now(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def joined(batches: Iterable[AppendInput]) -> Iterator[list[AppendInput]]:
    """Put together neighbours that may be appended as one: data, no condition on the seq, one token, and not too much.

    What many small batches of one session cost is mostly the commit; so they share one, as appends of many writers do.
    """
    group: list[AppendInput] = []
    count = size = 0
    for batch in batches:
        count, size = count + len(batch.records), size + batch.cost
        if group and not (_goes_with(batch, group[0]) and count <= MAX_RECORDS and size <= MAX_BYTES):
            yield group
            group, count, size = [], len(batch.records), batch.cost
        group.append(batch)
    if group:
        yield group


def _goes_with(batch: AppendInput, first: AppendInput) -> bool:
    is_free = all(one.match_seq_num is None and one.operation is Operation.APPEND for one in (batch, first))
    return is_free and batch.fencing_token == first.fencing_token


def _demanded(given: AppendInput) -> Guard | None:
    if given.fencing_token is None:
        return None
    return guard_of(given.fencing_token) or _NOBODYS


def _admissible(record: NewRecord) -> NewRecord:
    """Return a record for ``in`` as a brokered writer could have made it: an envelope without a forged mark."""
    if record.headers:
        raise S2Error.of(PERMISSION_DENIED, "Records of in have no headers")
    envelope = Envelope.parse(record.body)
    if envelope is None:
        raise S2Error.of(INVALID, 'A record of in is an envelope: {"data":…,"id":"…"}')
    if envelope.id.startswith(RESERVED_PARTS):
        raise S2Error.of(INVALID, f"The id of an envelope must not start with {RESERVED_PARTS}")
    try:
        return _sanitised(record, envelope)
    except (ValueError, RecursionError):
        raise S2Error.of(INVALID, "The data of a record of in is no JSON that everybody can read") from None


def _sanitised(record: NewRecord, envelope: Envelope) -> NewRecord:
    data = envelope.data
    text = data if isinstance(data, str) else encode_json(data)
    clean = sanitise_input(text)
    if clean == text:
        return record
    content = {"data": clean if isinstance(data, str) else json.loads(clean)}
    if envelope.id:
        content["id"] = envelope.id
    return attrs.evolve(record, body=encode_json(content).encode())
