"""Port: the durable, ordered log behind every channel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from sessions_core.domain.channel import Appended, Batch, Channel, NewRecord, Record, Tail
from sessions_core.domain.guard import Guard, GuardChange

READ_BYTES: Final = 1_048_576
"""About how many bytes of bodies one answer of a log holds, so that no reader brings everybody's memory down."""


class ChannelLog(Protocol):
    """Keeps the records of every channel.

    A channel needs no creation: one that nobody has written to is empty, its guard is ``UNTOUCHED``. Seqs start at 0,
    rise by one for each record and are never reused, also after a trim. A log may keep a change of the guard as a command
    record, which then takes a seq: that the tail has moved does not mean that somebody has written. When an append has returned, its records survive
    the death of every process (adapters that cannot promise this say so: ``memory``).
    """

    __slots__ = ()

    @abstractmethod
    async def append(
        self, channel: Channel, records: Sequence[NewRecord], *, guard: Guard, if_tail: int | None = None
    ) -> list[Appended]:
        """Append *records* in their order, all or none, if the channel's guard is *guard* and, if given, the next seq *if_tail*.

        A record whose part id was appended before (within the window: the channel's last 1 000 records or 15 minutes,
        whichever is more) is not stored again but answered with its first seq. If that holds for every record, guard and
        tail do not matter, and the channel may be sealed. A sealed channel refuses every new record, whatever guard is
        named, also ``sealed``. New records get consecutive seqs and one arrival time that is not before the tail's.

        A log may limit how much one append holds, to no less than 1 000 records and 1 MiB, and refuse commands here.

        Cancelling the call leaves it open whether the records were stored.

        Raises:
            GuardMismatchError: The channel's guard is another one, or it is sealed; nothing was stored.
            TailMismatchError: The guard is right, but the next seq is not *if_tail*; nothing was stored.
            RecordTooLargeError: More than the log takes in one record or append; nothing was stored.
            ChannelUnavailableError: No answer; the records may have been stored. A retry with the same part ids is safe.
        """

    @abstractmethod
    async def set_guard(
        self, channel: Channel, new: Guard, *, expect: Guard, if_tail: int | None = None
    ) -> GuardChange:
        """Change the guard from *expect* to *new*, and tell guard and tail as they are after the call.

        Atomic with every append. Not done if the guard is not *expect*, if *new* does not rise above it
        (:meth:`Guard.rises_to`), or if *if_tail* is given and the next seq is not that.
        """

    @abstractmethod
    async def tail(self, channel: Channel) -> Tail:
        """Return the end of the channel. Sees every append that has returned."""

    @abstractmethod
    async def read(self, channel: Channel, start: int, limit: int) -> Batch:
        """Return at most *limit* kept records from seq *start* on, oldest first, without waiting.

        Fewer, but at least one, once their bodies come to about :data:`READ_BYTES`: whether there is more is told by the
        batch's ``next_seq``, not by how many there are.
        """

    @abstractmethod
    async def read_back(self, channel: Channel, before: int, limit: int) -> list[Record]:
        """Return at most *limit* kept records with a seq below *before*, newest first.

        Fewer, but at least one, once their bodies come to about :data:`READ_BYTES`; none only if none is kept.
        """

    @abstractmethod
    def follow(self, channel: Channel, start: int) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Open an endless reading from seq *start*: what is there, then what comes, in order, no gap, no repeat.

        Batches are never empty, and not larger than a read's when it catches up. A *start* beyond the tail waits for that record. Records that were trimmed before they
        were read are skipped.

        Raises:
            ChannelUnavailableError: From the iterator, when the log is lost; open a new reading.
        """

    @abstractmethod
    async def trim(self, channel: Channel, first_kept: int, *, guard: Guard) -> int:
        """Append a trim command and let records before *first_kept* go, at once or later.

        Never drops the command itself or anything after it. Returns the command's seq. A sealed channel is not trimmed:
        the command would be a new record.

        Raises:
            GuardMismatchError: The channel's guard is another one, or it is sealed; nothing was stored.
        """
