"""Writing one channel: many callers, one append to S2 at a time.

How this works
--------------
Requests wait in a queue. Whatever waits when the writer is free goes together: appends under one guard become one batch, one
round trip, so the busier a channel is the more records an append carries, and nobody waits for a timer.

A batch goes out with the seq that must be its first one and with the guard as fencing token, so S2 takes it at one place in
the stream or not at all. When no answer comes, the same batch goes out again under the same conditions. At most one of the
two can be stored: if the second is taken, the first can never be; and if S2 says that the seq is not the next one any more,
the batch is either there, at its place, or never will be. So the outcome is known as soon as S2 answers again.

If somebody else has written at that place, what came is read, part ids are looked up again, and the rest goes out anew.

Every caller leaves at its own deadline, wherever its request is then. A batch is tried until the last of them has left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import attrs
from s2_sdk import AppendAck, FencingTokenMismatchError, SeqNumMismatchError, StreamPosition

from sessions_adapters.s2.backoff import Backoff
from sessions_adapters.s2.failures import FAILURES, guard_of, token_of
from sessions_adapters.s2.plan import Plan
from sessions_adapters.s2.records import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Entry, fence_entry, is_same
from sessions_adapters.s2.requests import Append, Request, SetGuard, answer, fail
from sessions_adapters.s2.stream import Stream
from sessions_adapters.s2.tail import KnownTail
from sessions_core.domain.guard import Guard, GuardChange
from sessions_core.errors import GuardMismatchError, TailMismatchError

T = TypeVar("T")


@attrs.define(eq=False)
class Writer:
    """Writes one stream for this process. Its task runs while there is something to write."""

    _stream: Stream
    tail: KnownTail
    _spawn: Callable[[Writer], None]
    _queue: deque[Request] = attrs.field(init=False, factory=deque)
    _is_running: bool = attrs.field(init=False, default=False)

    def put(self, request: Request) -> None:
        """Queue *request*; its answer comes through its future."""
        self._queue.append(request)
        if not self._is_running:
            self._is_running = True
            self._spawn(self)

    async def run(self) -> None:
        """Serve the queue until it is empty. An error is the answer to those it is about, and does not end the others."""
        taken: Sequence[Request] = ()
        try:
            while taken := self._take():
                try:
                    await self._serve(taken)
                except Exception as exc:  # noqa: BLE001 - it belongs to those who wait
                    fail(taken, exc)
        finally:
            self._is_running = False
            fail([*taken, *self._queue], ConnectionError())  # cancelled
            self._queue.clear()

    def _take(self) -> Sequence[Request]:
        """Take what can go in one batch; skip what nobody waits for any more."""
        taken: list[Append] = []
        count = size = 0
        while self._queue:
            request = self._queue[0]
            if request.answer.done():
                self._queue.popleft()
                continue
            if isinstance(request, SetGuard):
                return taken or [self._queue.popleft()]
            count, size = count + len(request.entries), size + request.size
            is_more = count > MAX_BATCH_RECORDS or size > MAX_BATCH_BYTES or request.if_tail is not None
            if taken and (is_more or request.guard != taken[0].guard):
                break
            taken.append(request)
            self._queue.popleft()
            if request.if_tail is not None:
                break
        return taken

    async def _serve(self, requests: Sequence[Request]) -> None:
        backoff = Backoff(max(request.deadline for request in requests))
        if isinstance(requests[0], SetGuard):
            answer(requests[0], await self._set_guard(requests[0], backoff))
        else:
            await self._append([request for request in requests if isinstance(request, Append)], backoff)

    async def _append(self, appends: list[Append], backoff: Backoff) -> None:
        guard = appends[0].guard
        while True:
            plan = await self._plan(appends, backoff)
            appends = plan.answer_known()
            if not appends:
                return
            try:
                if guard.is_sealed:
                    raise GuardMismatchError(await self._patiently(self._stream.guard, backoff))
                if not await self._has_tail(appends[0], backoff):
                    continue
                start = await self._commit(plan.entries, guard, guard, backoff)
            except (GuardMismatchError, TailMismatchError) as error:
                await self._refuse(appends, error, backoff)
                return
            if start is not None:
                plan.answer(start)
                return

    async def _has_tail(self, append: Append, backoff: Backoff) -> bool:
        """Tell whether the tail is what *append* asks for, as far as is known; False if what was known has changed.

        Raises:
            GuardMismatchError: It is not, and the guard is another one, too.
            TailMismatchError: It certainly is not.
        """
        known = self.tail.next_seq
        if append.if_tail is None or append.if_tail == known:
            return True
        await self._patiently(self.tail.catch_up, backoff)
        if self.tail.next_seq != known:
            return False
        actual = await self._patiently(self._stream.guard, backoff)
        raise TailMismatchError(known or 0) if actual == append.guard else GuardMismatchError(actual)

    async def _plan(self, appends: Sequence[Append], backoff: Backoff) -> Plan:
        has_parts = any(entry.part is not None for append in appends for entry in append.entries)
        await self._patiently(lambda: self.tail.ensure(parts=has_parts), backoff)
        plan = Plan()
        for append in appends:
            plan.add(append, self.tail.find)
        return plan

    async def _refuse(
        self, appends: Sequence[Append], error: GuardMismatchError | TailMismatchError, backoff: Backoff
    ) -> None:
        """Refuse all but those whose records are stored, maybe by somebody else just now."""
        if any(entry.part is not None for append in appends for entry in append.entries):
            await self._patiently(self.tail.catch_up, backoff)
            appends = (await self._plan(appends, backoff)).answer_known()
        fail(appends, error)

    async def _set_guard(self, request: SetGuard, backoff: Backoff) -> GuardChange:
        new, expect = request.new, request.expect
        fence = fence_entry(token_of(new))
        fence.stored.timestamp = request.timestamp
        while expect.rises_to(new) and (request.if_tail is None or request.if_tail >= 0):
            seq = await self._patiently(lambda: self.tail.ensure(parts=False), backoff)
            if request.if_tail not in (None, seq):
                await self._patiently(self.tail.catch_up, backoff)
                if request.if_tail != self.tail.next_seq:
                    break
            try:
                start = await self._commit([fence], expect, new, backoff)
            except GuardMismatchError:
                break
            if start is not None:
                return GuardChange(done=True, actual=new, tail=start + 1)
        return await self._patiently(self._unchanged, backoff)

    async def _unchanged(self) -> GuardChange:
        actual = await self._stream.guard()
        return GuardChange(done=False, actual=actual, tail=(await self._stream.tail()).seq_num)

    async def _commit(self, entries: Sequence[Entry], believed: Guard, then: Guard, backoff: Backoff) -> int | None:
        """Store *entries* at the end, all or none, if the guard is *believed*; return where they begin.

        Returns:
            None if somebody else wrote there first: the end is known again, nothing was stored.

        Raises:
            GuardMismatchError: Nothing was stored.
            ChannelUnavailableError: Out of patience; they may have been stored.
        """
        start = self.tail.next_seq
        assert start is not None
        records = [entry.at(seq) for seq, entry in enumerate(entries, start)]
        is_unsure = False
        while True:
            try:
                ack = await backoff.attempt(lambda: self._stream.append(records, seq=start, token=token_of(believed)))
            except (SeqNumMismatchError, FencingTokenMismatchError) as refusal:
                if is_unsure and await self._is_stored(entries, start, backoff):
                    return start
                await self._refused(refusal, backoff)
                return None
            except FAILURES as exc:
                is_unsure = True
                await backoff.pause(exc)
            else:
                self._stored(entries, ack, then)
                return start

    async def _refused(self, refusal: SeqNumMismatchError | FencingTokenMismatchError, backoff: Backoff) -> None:
        if isinstance(refusal, FencingTokenMismatchError):
            raise GuardMismatchError(guard_of(refusal.expected_fencing_token)) from refusal
        await self._patiently(self.tail.catch_up, backoff)
        backoff.check(refusal)

    async def _is_stored(self, entries: Sequence[Entry], start: int, backoff: Backoff) -> bool:
        """Tell whether an earlier attempt was taken, of which no answer came."""
        found = await self._patiently(lambda: self._stream.range(start, start + len(entries)), backoff)
        if len(found) < len(entries) or not all(map(is_same, entries, found)):
            return False
        await self._patiently(self.tail.catch_up, backoff)
        return True

    def _stored(self, entries: Sequence[Entry], ack: AppendAck, guard: Guard) -> None:
        self.tail.advance(entries, StreamPosition(ack.end.seq_num, ack.end.timestamp), guard)

    @staticmethod
    async def _patiently(call: Callable[[], Coroutine[Any, Any, T]], backoff: Backoff) -> T:
        """Make a call that changes nothing, again and again until it is answered or there is no patience left."""
        while True:
            try:
                return await backoff.attempt(call)
            except FAILURES as exc:
                await backoff.pause(exc)
