"""The answer to one message, picked out of everything that is on ``out`` while it comes."""

from __future__ import annotations

import attrs

from sessions_core.chat import Answer, shown_chunks
from sessions_core.domain.channel import TURN_COMPLETE, Io, Record, RecordKind, committed_by
from sessions_server.cli.terminal import Terminal
from sessions_server.cli.transcript import Transcript, chunk_of


@attrs.define(eq=False)
class AnswerReader:
    """Reads ``out`` up to the turn-complete that covers the message at *seq* of ``in``.

    Attributes:
        shows: Whether the answer is shown as it comes.
        is_known: Whether what comes next belongs to this message. If not, it is held back until its turn-complete tells.
        is_closed: Whether the session was closed before the answer was complete.
    """

    seq: int
    terminal: Terminal
    shows: bool = attrs.field(kw_only=True)
    is_known: bool = attrs.field(kw_only=True)
    is_closed: bool = attrs.field(init=False, default=False)
    _records: list[Record] = attrs.field(init=False, factory=list)
    _end: int = attrs.field(init=False, default=-1)
    _transcript: Transcript = attrs.field(init=False)

    @_transcript.default
    def _new_transcript(self) -> Transcript:
        return Transcript(Io.OUT, self.terminal.style)

    @property
    def answer(self) -> Answer:
        """The answer as far as it has come; what an attempt that died had begun and could not be used is left out."""
        return Answer(chunks=shown_chunks(map(chunk_of, self._records)), seq=self._end)

    @property
    def trouble(self) -> str | None:
        """Why the answer is no proper one, if it is none."""
        if self.is_closed:
            return "the session was closed before it answered"
        return None if self.answer.error is None else f"the agent failed: {self.answer.error}"

    def take(self, record: Record) -> bool:
        """Take a record of ``out``; tell whether it ended the answer."""
        if record.control == TURN_COMPLETE:
            return self._complete(record)
        self._records.append(record)
        if self.is_known:
            self._show(record)
        return False

    def miss(self, first_missing: int, first_kept: int) -> None:
        """Say that a part of the answer may be lost."""
        self.terminal.warn(f"records {first_missing} to {first_kept - 1} of out are no longer kept")

    def _complete(self, record: Record) -> bool:
        self.is_closed = record.closes_session
        covered = committed_by(record)
        if not self.is_closed and covered is not None and 0 <= covered < self.seq:
            self._records.clear()
            return False
        self._end = record.seq
        if not self.is_known:
            for held in self._records:
                self._show(held)
        return True

    def _show(self, record: Record) -> None:
        if self.shows and record.kind is RecordKind.DATA:
            self.terminal.write(self._transcript.add(record))
