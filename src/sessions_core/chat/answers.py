"""Reading what a chat agent answered, for a service that sends messages itself.

How this works
--------------
A turn ends with a ``turn-complete`` that names the ``in`` record up to which everything is answered. So the answer to the
record with seq *n* ends at the first one that names *n* or more, and begins after the one before. A run that died in the
middle of the turn has left an unfinished answer there, and the run that answered again has gone on with it or has made it
void; :mod:`sessions_core.chat.chunks` knows which.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from sessions_core.chat.chunks import Chunk, shown_chunks
from sessions_core.domain.channel import SESSION_CLOSED_REASON, Channel, Io, Record, RecordKind, committed_by
from sessions_core.domain.session import Session
from sessions_core.errors import SessionClosedError
from sessions_core.facade import Sessions
from sessions_core.ports.channel_log import ChannelLog

SCAN_RECORDS: Final = 256


@attrs.frozen(kw_only=True)
class Answer:
    """What one turn wrote.

    Attributes:
        chunks: The UI-message chunks that count, from ``start`` to ``finish``; empty if the agent wrote nothing.
        seq: The ``out`` seq of the turn-complete; a reader of ``out`` goes on after it.
    """

    chunks: tuple[Chunk, ...]
    seq: int

    @property
    def text(self) -> str:
        """All text that was written."""
        return "".join(str(chunk.get("delta", "")) for chunk in self.chunks if chunk.get("type") == "text-delta")

    @property
    def error(self) -> str | None:
        """What the reader was told if the agent failed; None if it did not."""
        errors = [str(chunk.get("errorText", "")) for chunk in self.chunks if chunk.get("type") == "error"]
        return errors[-1] if errors else None


async def read_answer(sessions: Sessions, session: Session, seq: int) -> Answer:
    """Wait for the turn that deals with the message at *seq* of ``in``, and return what it wrote.

    May be called at any time after the append, also by another process than the one that sent the message. Waits as long as
    it takes: bound it with ``anyio.fail_after`` or ``asyncio.timeout``.

    Raises:
        SessionClosedError: The session was closed or expired before the message was answered.
        ChannelUnavailableError: The log is lost; ask again.
    """
    out = session.channel(Io.OUT)
    answer = _Unfinished(session, seq)
    async with sessions.channels.subscribe(out, await _last_before(sessions.channels.log, out, seq)) as reading:
        while True:
            batch = await reading.next()
            for record in batch.records if batch else ():
                if (finished := answer.take(record)) is not None:
                    return finished


async def _last_before(log: ChannelLog, out: Channel, seq: int) -> int | None:
    """Return the seq of the last turn-complete for a record before *seq* (but no closing one), or None if there is none."""
    before = (await log.tail(out)).next_seq
    while records := await log.read_back(out, before, SCAN_RECORDS):
        for record in records:
            committed = committed_by(record)
            if committed is not None and 0 <= committed < seq and not record.closes_session:
                return record.seq
        before = records[-1].seq
    return None


@attrs.define
class _Unfinished:
    """The answer as far as it has been read."""

    _session: Session
    _wanted: int
    _written: list[Any] = attrs.field(init=False, factory=list)

    def take(self, record: Record) -> Answer | None:
        """Add a record of ``out``; return the answer once this was its last."""
        if record.kind is RecordKind.DATA:
            self._written.append(record.data)
        committed = committed_by(record)
        if committed is None:
            return None
        if record.closes_session:
            raise SessionClosedError(self._session.key, record.header(SESSION_CLOSED_REASON))
        if committed >= self._wanted:
            return Answer(chunks=shown_chunks(self._written), seq=record.seq)
        self._written.clear()
        return None
