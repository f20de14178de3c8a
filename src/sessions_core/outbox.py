"""A run's hold on ``out``: what it writes, until its attempt is over."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import anyio
import attrs

from sessions_core.domain.channel import Io, NewRecord, control_record, data_record
from sessions_core.domain.ids import PartId
from sessions_core.domain.session import Session
from sessions_core.errors import ClosedError, StaleRunError
from sessions_core.services.channel_service import ChannelService

CLOSE_SECONDS: Final = 5.0
"""How long a generator that is piped may take to clean up."""


@attrs.define(eq=False)
class Outbox:
    """The session's ``out`` channel as the current attempt writes it. Refused once the attempt is over.

    Attributes:
        tail: The seq after the last record that this attempt wrote (or that was there when it began).
        refusal: The error that told that this attempt is over or its session closed; None while it may write.
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
        """Append every value of an async iterable as it comes; return the seq of the last (or ``tail - 1``)."""
        try:
            async for value in values:
                await self.append(value)
        finally:
            await close_generator(values)
        return self.tail - 1

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

    @contextmanager
    def noting_refusal(self) -> Generator[None]:
        """Remember an error that says that this attempt is over."""
        try:
            yield
        except (StaleRunError, ClosedError) as error:
            self.refusal = error
            raise


async def close_generator(values: AsyncIterable[Any]) -> None:
    """Close *values* if it is a generator, so that what it holds is released now and not some time later."""
    if isinstance(values, AsyncGenerator):
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await values.aclose()
