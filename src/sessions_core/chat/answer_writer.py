"""Writing the message that answers one input: each chunk once, whichever attempt of its turn comes to it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import Final, TypeVar

import anyio
import attrs

from sessions_core.chat.chunks import FINISH, METADATA, START, START_STEP, Chunk
from sessions_core.chat.partial import PartialAnswer, Replay, Shown
from sessions_core.domain.channel import NewRecord
from sessions_core.errors import InvalidError, UnavailableError
from sessions_core.outbox import Outbox, Pipe, pieces

WRITE_SECONDS: Final = 30.0

T = TypeVar("T")
Piece = tuple[Chunk, NewRecord]
"""A chunk, and the record that holds it."""


@attrs.define(eq=False)
class AnswerWriter:
    """Writes one answer, from where the attempts before this one have come to.

    The message's ``start`` goes before the first chunk; without a chunk there is no message.

    Attributes:
        lost: The error that left it open whether something was stored, raised by every call since; None while that is known.
    """

    _out: Outbox
    _message_id: str
    _recovered: PartialAnswer
    lost: Exception | None = attrs.field(init=False, default=None)
    _writing: anyio.Lock = attrs.field(init=False, factory=lambda: anyio.Lock(fast_acquire=True))
    _shown: Shown = attrs.field(init=False)
    _replay: Replay = attrs.field(init=False)
    _has_spoken: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._replay = Replay(self._recovered)
        self._shown = Shown(self._recovered.is_begun)
        self._shown.note(self._recovered.chunks)

    async def write(self, chunks: Iterable[Chunk]) -> None:
        """Write *chunks*, all or none if one append takes them.

        Raises:
            InvalidError: A chunk has no ``type``; nothing was written.
            RecordTooLargeError: A chunk is too large; nothing was written.
            UnavailableError: The log gave no answer, now or before.
        """
        await self._store([piece for chunk in chunks for piece in self._check(chunk)])

    async def pipe(self, values: AsyncIterable[T], to_chunks: Callable[[T], Iterable[Chunk]]) -> None:
        """Write the chunks of each value as it comes; those that come faster than they can be stored are stored together."""
        pipe: Pipe[Piece] = Pipe(self._store, lambda piece: len(piece[1].body))
        await pipe.carry(values, lambda value: [piece for chunk in to_chunks(value) for piece in self._check(chunk)])

    def end(self, *, is_whole: bool) -> list[Chunk]:
        """Return the chunks that end what is open, to be written with the turn-complete. Nothing can be written afterwards.

        Args:
            is_whole: Whether all has been written that was to be; else what earlier attempts have stored beyond it stands.
        """
        return self._ending(self._replay.finish() if is_whole else [])

    def end_with(self, error_text: str) -> list[Chunk]:
        """Return the chunks that end it with an error; the error alone if no message was begun."""
        return self._ending([*self._shown.end_parts(), {"type": "error", "errorText": error_text}])

    def _ending(self, last: list[Chunk]) -> list[Chunk]:
        is_begun = self._shown.is_begun
        self._shown.note(last)
        finish: list[Chunk] = [{"type": FINISH}] if is_begun else []
        return [*last, *self._shown.end_parts(), *self._shown.end_step(), *finish]

    def _check(self, chunk: Chunk) -> list[Piece]:
        """Make what *chunk* counts for: nothing or one piece. Whatever may be wrong with it shows here."""
        kind = chunk.get("type")
        if not isinstance(kind, str):
            raise InvalidError("chunk.type", "must be a string")
        if kind in (START, FINISH):
            metadata = chunk.get("messageMetadata")
            return [] if metadata is None else [self._piece({"type": METADATA, "messageMetadata": metadata})]
        return [self._piece({**chunk})]  # A copy, as it may be looked at only after its writer has changed it.

    def _admit(self, piece: Piece) -> list[Piece]:
        """Make what has to be stored for *piece*: nothing if an earlier attempt has stored it."""
        chunk, _ = piece
        first = () if self._has_spoken or chunk["type"] in (START_STEP, METADATA) else ({"type": START_STEP},)
        self._has_spoken = self._has_spoken or chunk["type"] != METADATA
        admitted = [one for each in (*first, chunk) for one in self._replay.admit(each)]
        return [piece if one is chunk else self._piece(one) for one in admitted]

    def _piece(self, chunk: Chunk) -> Piece:
        (record,) = self._out.data_records([chunk])
        record.check_size()
        return chunk, record

    async def _store(self, chunks: Sequence[Piece]) -> None:
        """Append what earlier attempts have not stored, after the message's ``start`` if it has not been written.

        One call after the other, as each goes on from what the one before has stored. Not cut short: what has been begun
        must be known, so as to be ended. What never gets here has not been said.

        Without an answer of the log nobody knows what is there, so nothing can be added, not even the end.
        """
        if self.lost is not None:
            raise self.lost.with_traceback(None)
        async with self._writing:  # A task that was stopped does not get in.
            admitted = [one for chunk in chunks for one in self._admit(chunk)]
            if admitted and not self._shown.is_begun:
                admitted = [self._piece({"type": START, "messageId": self._message_id}), *admitted]
            if admitted:
                try:
                    with anyio.fail_after(WRITE_SECONDS, shield=True):
                        await self._append(admitted)
                except (UnavailableError, TimeoutError) as error:
                    self.lost = error
                    raise

    async def _append(self, admitted: Sequence[Piece]) -> None:
        """Append in the pieces that a log takes, so that a crash in between leaves what can be gone on with."""
        left = [chunk for chunk, _ in admitted]
        for piece in pieces(record for _, record in admitted):
            await self._out.write(piece)
            stored, left = left[: len(piece)], left[len(piece) :]
            self._shown.note(stored)
