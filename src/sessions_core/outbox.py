"""A run's hold on ``out``: what it writes, until its attempt is over."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

import anyio
import attrs
from anyio.lowlevel import checkpoint

from sessions_core.domain.channel import Io, NewRecord, control_record, data_record
from sessions_core.domain.ids import PartId
from sessions_core.domain.session import Session
from sessions_core.errors import ClosedError, StaleRunError
from sessions_core.services.channel_service import ChannelService
from sessions_core.unwrapping import unwrapped

CLOSE_SECONDS: Final = 5.0
"""How long a generator that is piped may take to clean up."""
PIPE_ITEMS: Final = 256
PIPE_BYTES: Final = 262_144
"""How much may wait in a pipe for the append under way, before its source has to wait. One item may be larger."""
APPEND_RECORDS: Final = 1000
APPEND_BYTES: Final = 1_048_576
"""What every log takes in one append, in bytes as the S2 log counts them."""

T = TypeVar("T")
Item = TypeVar("Item")


@attrs.define(eq=False)
class Outbox:
    """The session's ``out`` channel as the current attempt writes it. Refused once the attempt is over.

    Attributes:
        tail: The seq after the last record that this attempt wrote (or that was there when it began).
        refusal: The error that told that this attempt is over or its session closed, raised by every call since; None while
            it may write.
    """

    tail: int
    _session: Session
    _epoch: int
    _channels: ChannelService
    refusal: StaleRunError | ClosedError | None = attrs.field(init=False, default=None)

    async def append(self, *values: Any) -> int:
        """Append each value as a data record, all or none; return the seq of the last.

        Raises:
            StaleRunError: Another attempt or run has taken over.
            ClosedError: The session is closed or expired.
            RecordTooLargeError: A value is too large; nothing was appended.
        """
        return await self.write(self.data_records(values))

    def data_records(self, values: Iterable[Any]) -> list[NewRecord]:
        """Make (but not append) a data record of each value."""
        new_part = self._channels.ids.new_part
        return [data_record(value, PartId(new_part()), dedupe=False) for value in values]

    async def control(self, subtype: str, siblings: Mapping[str, str] | None = None) -> int:
        """Append a control record; return its seq. Raises like :meth:`append`."""
        return await self.write([control_record(subtype, siblings)])

    async def pipe(self, values: AsyncIterable[Any]) -> int:
        """Append every value of an async iterable as it comes; return the seq of the last (or ``tail - 1``).

        Values that come while an append is under way go together into the next one. If the source fails, its error is
        raised once what came before it is stored. A generator is closed in the end, also when this call is cancelled.

        Raises like :meth:`append`.
        """
        pipe: Pipe[NewRecord] = Pipe(self.write, lambda record: len(record.body))
        await pipe.carry(values, self._checked)
        return self.tail - 1

    def _checked(self, value: Any) -> list[NewRecord]:
        records = self.data_records([value])
        records[0].check_size()
        return records

    async def trim(self, first_kept: int) -> int:
        """Let the records before *first_kept* go; return the seq of the trim command. Raises like :meth:`append`."""
        with self.noting_refusal():
            seq = await self._channels.trim(self._session, first_kept, epoch=self._epoch)
        self.tail = max(self.tail, seq + 1)
        return seq

    async def write(self, records: Sequence[NewRecord]) -> int:
        """Append ready-made records; return the seq of the last. Raises like :meth:`append`."""
        if not records:
            return self.tail - 1
        with self.noting_refusal():
            appended = await self._channels.append(self._session, Io.OUT, records, epoch=self._epoch)
        self.tail = max(self.tail, appended[-1].seq + 1)
        return appended[-1].seq

    async def write_in_pieces(self, records: Sequence[NewRecord]) -> int:
        """Append *records* in their order, in as many appends as every log takes. Raises like :meth:`append`."""
        seq = self.tail - 1
        for piece in pieces(records):
            seq = await self.write(piece)
        return seq

    @contextmanager
    def noting_refusal(self) -> Generator[None]:
        """Remember the first error that says that this attempt is over, and raise it in place of those that follow."""
        try:
            yield
        except (StaleRunError, ClosedError) as error:
            if self.refusal is None:
                self.refusal = error
                raise
            raise self.refusal.with_traceback(None) from None


def pieces(records: Iterable[NewRecord]) -> Iterator[list[NewRecord]]:
    """Cut *records* into appends of a size that every log takes; a single record may be as large as it may."""
    piece: list[NewRecord] = []
    size = 0
    for record in records:
        metered = record.metered_size
        if piece and (len(piece) == APPEND_RECORDS or size + metered > APPEND_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(record)
        size += metered
    if piece:
        yield piece


@attrs.define(eq=False)
class Pipe(Generic[Item]):
    """Hands items on to a slow taker: one alone at once, those that come meanwhile together, and never too many.

    The source is read in the caller's own task, since what it holds (a connection, a cancel scope) may belong there; the
    taker runs beside it. Each pipe carries once.
    """

    _take: Callable[[list[Item]], Awaitable[object]]
    _size: Callable[[Item], int]
    _waiting: list[Item] = attrs.field(init=False, factory=list)
    _weight: int = attrs.field(init=False, default=0)
    _changed: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _is_over: bool = attrs.field(init=False, default=False)
    _refusal: Exception | None = attrs.field(init=False, default=None)

    async def carry(self, values: AsyncIterable[T], to_items: Callable[[T], Iterable[Item]]) -> None:
        """Hand on the items of every value, in order, until the source ends.

        Raises:
            Exception: The taker's, at once; the source's or that of *to_items*, once what came before has been taken.
        """
        failure: Exception | None = None
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hand_on, tasks.cancel_scope)
                try:
                    failure = await self._collect(values, to_items)
                finally:
                    closing = await close_generator(values)
                failure = failure or closing
                self._is_over = True
                self._tell()
        if (error := self._refusal or failure) is not None:
            raise error

    async def _collect(self, values: AsyncIterable[T], to_items: Callable[[T], Iterable[Item]]) -> Exception | None:
        try:
            async for value in values:
                for item in to_items(value):
                    await self._put(item)
                # Also where the source has everything at hand: the taker gets its turn, and a cancellation is noticed.
                await checkpoint()
        except Exception as error:  # noqa: BLE001 - raised by carry, when what came before is safe
            return error
        return None

    async def _put(self, item: Item) -> None:
        size = self._size(item)
        while self._waiting and (len(self._waiting) >= PIPE_ITEMS or self._weight + size > PIPE_BYTES):
            await self._changed.wait()
        self._waiting.append(item)
        self._weight += size
        self._tell()

    async def _hand_on(self, source: anyio.CancelScope) -> None:
        while self._waiting or not self._is_over:
            if not self._waiting:
                await self._changed.wait()
                continue
            batch, self._waiting, self._weight = self._waiting, [], 0
            self._tell()
            try:
                await self._take(batch)
            except Exception as error:  # noqa: BLE001 - raised by carry
                self._refusal = error
                source.cancel()
                return

    def _tell(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


async def close_generator(values: AsyncIterable[Any]) -> Exception | None:
    """Close *values* if it is a generator, so that what it holds is released now and not some time later.

    Returns:
        What it raised instead of closing, so that it does not hide why it was closed.
    """
    if isinstance(values, AsyncGenerator):
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            try:
                await values.aclose()
            except Exception as error:  # noqa: BLE001 - told to the caller
                return error
    return None
